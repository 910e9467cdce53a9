"""The memory that kinds of trials take, counted without a GPU: the shipped `footprints.csv`.

    python experiments/benchmarks/footprints.py [SPEC ...] [--write]

A trial trains two batches of its own on a CPU and is tested while torch's profiler notes every
allocation, at two small sizes. What is kept grows in proportion to the batch, so the two give the
peak at the trial's batch size and at that of a test, whichever is higher; what the dataset takes is
added. By default: the kinds of trials that the published tables have most of. --check also counts
at the full size.
"""

from __future__ import annotations

import argparse
import csv
import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from header import header
from torch.profiler import ProfilerActivity, profile

import raygrid
from raygrid.engine.costs.measure import task_on_noise, try_out, unseen_bytes
from raygrid.engine.costs.profiles import kind
from raygrid.engine.grid import plan
from raygrid.trials.evaluate import IMAGES_AT_ONCE
from raygrid.trials.trial import Trial

TRAINED, TESTED = (32, 64), (250, 500)
BATCHES = 2  # with the first alone there are no momenta yet
CONTRASTIVE = ("supcl", "simclr", "byol", "moco", "simsiam")
SPECS = (
    *(
        f"cifar10/clean/standard/{network}/supervised/dvae/0"
        for network in (
            "resnet18",
            "resnet34",
            "resnet50",
            "senet18",
            "vgg11",
            "vgg16",
            "vgg19",
            "mobilenet",
            "mobilenetv2",
            "densenet121",
            "googlenet",
            "vit_small",
            "cait_small",
        )
    ),
    *(f"cifar10/clean/standard/resnet18/{learner}/tp/0" for learner in CONTRASTIVE),
    *(f"tinyimagenet/clean/standard/resnet18/{learner}/tp/0" for learner in CONTRASTIVE),
    "tinyimagenet/clean/standard/resnet18/supervised/tp/0",
    "imagenet100/clean/standard/resnet18/supervised/dvae/0",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("specs", nargs="*", default=SPECS)
    parser.add_argument("--write", action="store_true", help="into the package")
    parser.add_argument("--check", action="store_true", help="count at the full batch too")
    args = parser.parse_args()
    print(header())
    torch.set_num_threads(1)
    rows = {}
    for trial in plan(args.specs, None).trials:
        rows[kind(trial)] = counted = megabytes(trial)
        whole = (
            max(peaks(trial, trial.recipe.batch_size, IMAGES_AT_ONCE)) if args.check else counted
        )
        print(f"{kind(trial)}: {counted:.0f} MB, at the full size {whole:.0f}", flush=True)
    if args.write:
        write(sorted(rows.items()))


def megabytes(trial: Trial) -> float:
    """The peak at the sizes of the trial, and the dataset."""
    full = (trial.recipe.batch_size, IMAGES_AT_ONCE)
    small, large = (peaks(trial, *sizes) for sizes in zip(TRAINED, TESTED, strict=True))
    spans = zip(small, large, (TRAINED, TESTED), full, strict=True)
    return max(a + (b - a) * (size - n) / (m - n) for a, b, (n, m), size in spans)


def peaks(trial: Trial, batch: int, tested: int) -> tuple[float, float]:
    """Most memory that tensors had at a time: in two batches of training, and in a test, MB."""
    cpu = torch.device("cpu")
    small = replace(trial, recipe=trial.recipe.with_(batch_size=batch))
    with noting() as training:
        session = small.learner.start(task_on_noise(small, BATCHES, cpu))
        session.epoch(0)
    with noting() as testing:
        try_out(small, session, tested, cpu)
    weights = training.left  # what testing finds there
    data = unseen_bytes(small, BATCHES, cpu)
    return (training.most + data) / 2**20, (weights + testing.most + data) / 2**20


@dataclass
class Memory:
    """Bytes of tensors: the most at a time, and what was left at the end."""

    most: int = 0
    left: int = 0


@contextmanager
def noting() -> Iterator[Memory]:
    """Fill in what the code inside allocates."""
    memory = Memory()
    gc.collect()  # what is freed inside should have been made inside
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        yield memory
    assert seen.profiler is not None
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        memory.left += event.nbytes()
        memory.most = max(memory.most, memory.left)


def write(rows: Sequence[tuple[str, float]]) -> None:
    path = Path(raygrid.__file__).parent / "engine" / "costs" / "footprints.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([("kind", "memory_mb"), *((name, round(mb)) for name, mb in rows)])


if __name__ == "__main__":
    main()
