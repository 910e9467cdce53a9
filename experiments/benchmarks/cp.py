"""Whether CP harms a contrastive learner at a scale that a core reaches: claims that hold or fail.

    python experiments/benchmarks/cp.py [CASE ...] --archive cifar10.tar.gz [--out DIR]

class     class-wise noise of 32/255, the probe fitted on poisoned images
probe     the same, the probe fitted on clean images
half      class-wise noise of 16/255, the probe fitted on poisoned images
sample    sample-wise noise of 16/255 that starts at class-wise noise, as published
double    sample-wise noise of 32/255, half the epochs

SimCLR victims of small_cnn after 60 epochs on 250 images of each class of CIFAR-10 at 16 pixels,
seed 0; CP makes its noise with SimCLR and small_cnn too. The published budget is 8/255, on 20 times
as many images and networks 450 times as large.

Two claims a case. `loss`: the victim's own loss, which CP lowers, ends lower than with random noise
of the same budget. `accuracy`: the victim loses 10 points more than with that noise. Rows of an
earlier call are kept; see `raygrid table`. A claim that fails makes the exit status 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from header import header
from purifying import line, unpack

from raygrid.api.run_grid import Options, run_grid
from raygrid.core.spec import TrialSpec
from raygrid.trials.result import Result

NAME, SIDE, TRAIN, TEST = "cifar10_250", 16, 250, 200
WHERE = f"folder(name={NAME}, size={SIDE})/{{}}/standard/small_cnn/simclr/quick({{}})/0"
FITTED = "batch_size=128, class_rounds=40, lr=0.1, surrogate=small_cnn"


@dataclass(frozen=True)
class Case:
    """CP's parameters and the budget that noise has too; what the probe is fitted on."""

    params: str
    budget: str
    probe: str = "poisoned"

    def spec(self, attack: str) -> str:
        return WHERE.format(attack, f"epochs=60, probe_data={self.probe}")

    @property
    def specs(self) -> list[str]:
        """The trials without noise, with random noise and with CP's."""
        budget = f"budget={self.budget}"
        attacks = ("clean", f"noise({budget})", f"cp({FITTED}, {budget}, {self.params})")
        return [self.spec(attack) for attack in attacks]


CASES = {
    "class": Case("mode=class", "32/255"),
    "probe": Case("mode=class", "32/255", "clean"),
    "half": Case("mode=class", "16/255"),
    "sample": Case("epochs=60, step=0.2, steps=3", "16/255"),
    "double": Case("epochs=30, step=0.2, steps=3", "32/255"),
}


@dataclass(frozen=True)
class Claim:
    """How much lower a number is with CP than with random noise, and how much it has to be."""

    text: str
    lower: float
    bound: float

    @property
    def holds(self) -> bool:
        return self.lower >= self.bound

    def __str__(self) -> str:
        verdict = "PASS" if self.holds else "FAIL"
        return f"{verdict}  {self.text}: {self.lower:.3f} lower, claimed at least {self.bound}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}")
    parser.add_argument("--archive", type=Path, help="CIFAR-10 as class folders, .tar.gz")
    parser.add_argument("--out", type=Path, default=Path("runs/cp"))
    args = parser.parse_args()
    unknown = set(args.cases) - set(CASES)
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}; known: {', '.join(CASES)}")
    data = args.out / "data"
    if not (data / NAME).is_dir():
        if args.archive is None:
            sys.exit("the first call needs --archive")
        unpack(args.archive, data / NAME, TRAIN, TEST)
    print(header())
    options = Options(out=args.out, data=data, executor="inline", quiet=True)
    holds = True
    for name in args.cases or CASES:
        results = run_grid(CASES[name].specs, options).results
        print(*map(line, results), sep="\n")
        by_attack = {TrialSpec.parse(result.spec).attack.name: result for result in results}
        claims = list(claimed(name, by_attack["noise"], by_attack["cp"]))
        print(*claims, sep="\n", flush=True)
        holds = holds and len(claims) == 2 and all(claim.holds for claim in claims)
    sys.exit(0 if holds else 1)


def claimed(name: str, noise: Result, cp: Result) -> Iterator[Claim]:
    """Nothing where a trial has no number."""
    if noise.final_acc is None or cp.final_acc is None:
        return
    before, after = (result.history[-1]["train_loss"] for result in (noise, cp))
    yield Claim(f"{name}: loss", before - after, 0.1)
    yield Claim(f"{name}: accuracy", noise.final_acc - cp.final_acc, 0.1)


if __name__ == "__main__":
    main()
