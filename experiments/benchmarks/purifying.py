"""What defenses give back at a small scale, in minutes on one core.

    python experiments/benchmarks/purifying.py CASE [--archive cifar10.tar.gz] [--out DIR]

filters  JPEG and grayscale against LSP and regions on photo_digits
erasing  UEraser and adversarial training against EM on photo_digits
dvae     D-VAE's purified set, against LSP on CIFAR-10
recon    the perturbations that D-VAE finds, put on clean images
detect   D-VAE's detector with 40 % of the images poisoned

The last three need CIFAR-10 as an archive of `train/<class>/*` and `test/<class>/*`. They take
128 training images of each class at 16 pixels: the settings are the method's own but for the number
of epochs. Rows of an earlier call are kept; see `raygrid table`.
"""

from __future__ import annotations

import argparse
import sys
import tarfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from header import header

from raygrid.result import Result
from raygrid.run import Options, run_grid

NAME, SIDE, TRAIN, TEST = "cifar10_small", 16, 128, 200
DIGITS = "photo_digits/{}/{}/small_cnn/supervised/quick/0"
PICTURES = f"folder(name={NAME}, size={SIDE})/{{}}/{{}}/small_cnn/supervised/quick(epochs=20)/0"
LSP = "lsp(budget=l2:1.74)"
EM = "em(batch_size=128, budget=16/255, max_rounds=4, step=0.5, steps=2, surrogate=small_cnn)"
FITTED = "epochs=40"

Cases = Mapping[str, tuple[str, tuple[tuple[str, str], ...]]]
CASES: Cases = {
    "filters": (
        DIGITS,
        tuple(
            (attack, defense)
            for attack in ("clean", "lsp(budget=l2:3.48)", "regions(budget=16/255)")
            for defense in ("standard", "jpeg", "grayscale")
        ),
    ),
    "erasing": (
        DIGITS,
        tuple(
            (attack, defense)
            for attack in ("clean", EM)
            for defense in ("standard", "ueraser_lite", "ueraser_max", "at")
        ),
    ),
    "dvae": (PICTURES, (("clean", "standard"), (LSP, "standard"), (LSP, f"dvae({FITTED})"))),
    "recon": (
        PICTURES,
        (
            ("clean", "standard"),
            (LSP, "standard"),
            (f"dvae_recon(base=lsp, base_budget=l2:1.74, {FITTED})", "standard"),
        ),
    ),
    "detect": (
        PICTURES,
        (
            (
                f"{LSP}@0.4",
                f"dvae_detect({FITTED}, architecture=small_cnn, classifier_epochs=20)",
            ),
        ),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", choices=sorted(CASES))
    parser.add_argument("--archive", type=Path, help="CIFAR-10 as class folders, .tar.gz")
    parser.add_argument("--out", type=Path, default=Path("runs/purifying"))
    args = parser.parse_args()
    spec, pairs = CASES[args.case]
    data = args.out / "data"
    if spec is PICTURES and not (data / NAME).is_dir():
        if args.archive is None:
            sys.exit(f"{args.case} needs --archive")
        unpack(args.archive, data / NAME)
    print(header())
    specs = [spec.format(attack, defense) for attack, defense in pairs]
    outcome = run_grid(specs, Options(out=args.out, data=data, executor="inline", quiet=True))
    for spec_ in outcome.plan.skips:
        print(f"skipped {spec_.spec}: {spec_.reason}")
    for result in outcome.results:
        print(line(result))
    recovered(outcome.results)


def unpack(archive: Path, folder: Path) -> None:
    """The first pictures of every class."""
    taken: Counter[str] = Counter()
    limits = {"train": TRAIN, "test": TEST}
    with tarfile.open(archive) as file:
        for member in file:
            path = PurePosixPath(member.name)
            if not member.isfile() or len(path.parts) != 3 or path.parts[0] not in limits:
                continue
            place = str(path.parent)
            if taken[place] < limits[path.parts[0]]:
                taken[place] += 1
                file.extract(member, folder, filter="data")


def line(result: Result) -> str:
    final = "failed" if result.final_acc is None else f"{100 * result.final_acc:5.1f} %"
    found = {k: round(v, 3) for k, v in result.detection.items()}
    return f"{final}  {result.spec}  {found or ''}{result.error or ''}"


def recovered(results: list[Result]) -> None:
    """How much of what an attack takes each defense gives back."""
    cells = {}
    for result in results:
        attack, defense = result.spec.rsplit("/", 5)[0], result.spec.split("/")[-5]
        cells[attack.partition("/")[2], defense] = result.final_acc
    clean = cells.get(("clean", "standard"))
    for (attack, defense), accuracy in cells.items():
        bare = cells.get((attack, "standard"))
        if clean and bare and accuracy and attack != "clean" and defense != "standard":
            share = (accuracy - bare) / (clean - bare)
            print(f"{defense} gives back {share:.0%} of what {attack} takes")


if __name__ == "__main__":
    main()
