"""What the shared features of a frozen extractor save: linear-probe victims with and without them.

python experiments/benchmarks/feature_cache.py [--victims 100] [--dataset cifar10|photo_digits_last]
    [--architecture small_cnn] [--passes 4] [--images 10000] [--fresh 3]

`kept`: every victim reads the features of the cell and computes those of its own poisons alone.
`fresh`: the same victim with no feature kept. Both train the same head for 40 epochs on 250 images
a class and answer the same probes after every one. Images are random pixels in the sizes of the
data set, since time does not depend on them; `photo_digits_last` are the embedded ones.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from header import header

from raygrid.core.images import Images
from raygrid.core.registry import Card
from raygrid.datasets import DATASETS
from raygrid.datasets.base import Dataset, Split
from raygrid.storage.store import Bundle, Store
from raygrid.trials.artifacts import Artifact, BuildContext
from raygrid.trials.artifacts.build import build
from raygrid.trials.catalog import Catalog
from raygrid.trials.context import TrialContext
from raygrid.trials.resolve import resolve
from raygrid.trials.result import Result
from raygrid.trials.run import run_trial
from raygrid.trials.trial import Trial

TRAIN = 275  # images of a class: 250 and the bases


@DATASETS.register("random_ten")
@dataclass(frozen=True, kw_only=True)
class RandomTen(Dataset):
    """Random pixels in ten classes, 32 pixels, 10,000 test images as in CIFAR-10."""

    card = Card(paper="none; for this benchmark")
    classes: ClassVar[int] = 10
    image_size: ClassVar[int] = 32
    train_size: ClassVar[int] = 10 * TRAIN
    test_size: ClassVar[int] = 10_000

    def source(self, root: Path) -> str:
        return "random"

    def load(self, root: Path) -> Split:
        generator = torch.Generator().manual_seed(0)

        def part(n: int) -> Images:
            pixels = torch.randint(0, 256, (n, 3, 32, 32), generator=generator, dtype=torch.uint8)
            return Images(pixels, torch.arange(n) % 10, 10)

        return Split(part(self.train_size), part(self.test_size))


def spec(args: argparse.Namespace, number: int) -> str:
    attack = "patch_dirty" if number % 2 else "clean"
    learner = f"linear_probe(cache={args.passes})"
    protocol = "toxic_quick(pretrain_epochs=1)"
    return f"{args.dataset}/{attack}/standard/{args.architecture}/{learner}/{protocol}/{number}"


class BundleCache:
    """Artifacts in memory after the first time, as a cluster's object store holds them."""

    def __init__(self, store: Store, root: Path) -> None:
        self.store, self.bench = store, BuildContext(torch.device("cpu"), root)
        self.known: dict[str, Bundle] = {}

    def __call__(self, artifact: Artifact) -> Bundle:
        if artifact.key not in self.known:
            self.known[artifact.key] = build(artifact, self.store, self.bench, self)[0]
        return self.known[artifact.key]


def timed(trial: Trial, cache: BundleCache) -> tuple[float, Result]:
    for artifact in trial.artifacts:
        cache(artifact)
    started = time.perf_counter()
    result = run_trial(trial, cache, TrialContext())
    if result.error:
        raise SystemExit(result.error)
    return time.perf_counter() - started, result


def fresh(trial: Trial, cache: BundleCache) -> tuple[float, Result]:
    """A victim that computes every feature itself, those of the test set included."""
    from raygrid.trials.artifacts import features

    usual = features.features_for

    def nothing(*args: object, **kwargs: object) -> object:
        found = usual(*args, **kwargs)  # type: ignore[arg-type]
        return replace(found, known=torch.zeros_like(found.known), tests={})

    features.features_for = nothing  # type: ignore[assignment]
    try:
        return timed(trial, cache)
    finally:
        features.features_for = usual


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--victims", type=int, default=100)
    parser.add_argument("--fresh", type=int, default=3, help="victims without kept features")
    parser.add_argument("--dataset", default="random_ten")
    parser.add_argument("--architecture", default="small_cnn")
    parser.add_argument("--passes", type=int, default=4)
    args = parser.parse_args()
    print(header())
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        store = Store(Path(name) / "store")
        catalog, cache = Catalog(store, Path(name)), BundleCache(store, Path(name))
        trials = [resolve(spec(args, number), catalog) for number in range(args.victims)]
        started = time.perf_counter()
        for trial in trials:
            for artifact in trial.artifacts:
                cache(artifact)
        print(f"artifacts of {args.victims} set-ups: {time.perf_counter() - started:.1f} s")
        started = time.perf_counter()
        kept = [timed(trial, cache) for trial in trials]
        total = time.perf_counter() - started
        slow = [fresh(trial, cache) for trial in trials[: args.fresh]]
    for (_, one), (_, other) in zip(kept, slow, strict=False):
        ours, theirs = (r.probes["clean_test"]["k"] for r in (one, other))
        assert abs(ours - theirs) <= 0.01 * one.probes["clean_test"]["n"], (ours, theirs)
    fast, long = (statistics.median(t for t, _ in some) for some in (kept, slow))
    print(f"{args.victims} victims: {total:.1f} s, median {fast:.3f} s each")
    print(f"without kept features: median {long:.3f} s each, {long / fast:.1f} times as long")
    return 0


if __name__ == "__main__":
    sys.exit(main())
