"""A grid of 48 trials with 1, 2 and 4 of them on one GPU at a time, through Ray.

    python experiments/benchmarks/packing.py [--trials 48] [--per-gpu 1 2 4] [--seconds 1]

With a GPU: ResNet-18 on random images of CIFAR-10's size and number, `--epochs` each. Without one
the GPU is a logical resource of Ray and trials sleep: that measures how Ray and raygrid pack, and
nothing about a GPU. The makespan holds the start of the workers; the rate is that after each of
them has ended its first trial.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
from header import header

from raygrid.api.run_grid import Options, run_grid
from raygrid.engine.ray.executor import connected
from raygrid.engine.ray.worker import LOGICAL_GPUS
from raygrid.trials.result import Result

ASLEEP = "blank/clean/none/small_cnn/idle(seconds={seconds})/idle/{seed}"
REAL = "blank(images={images})/clean/standard/resnet18/supervised/idle(epochs={epochs})/{seed}"


def grid(args: argparse.Namespace, per_gpu: int, folder: Path) -> tuple[float, list[Result]]:
    """Seconds from the call until the last trial is done, and the rows."""
    spec = REAL if torch.cuda.is_available() else ASLEEP
    specs = [spec.format(**vars(args), seed=seed) for seed in range(args.trials)]
    options = Options(
        out=folder, executor="ray", imports=("idle",), quiet=True, per_gpu=per_gpu, mps=args.mps
    )
    started = time.time()
    outcome = run_grid(specs, options)
    assert [r.status for r in outcome.results] == ["done"] * len(specs)
    return max(r.finished for r in outcome.results) - started, outcome.results


def rate(rows: list[Result], workers: int) -> float:
    """Trials an hour once all workers are there."""
    ends = sorted(row.finished for row in rows)[workers - 1 :]
    return 3600 * (len(ends) - 1) / (ends[-1] - ends[0])


def busy(rows: list[Result]) -> str:
    """The median of what the trials saw of the GPU's time."""
    seen = [row.utilization for row in rows if row.utilization is not None]
    return f"{statistics.median(seen):.0%}" if seen else "not measured"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--trials", type=int, default=48)
    parser.add_argument("--per-gpu", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--seconds", type=float, default=1.0, help="of a trial without a GPU")
    parser.add_argument("--epochs", type=int, default=2, help="of a trial on a GPU")
    parser.add_argument("--images", type=int, default=50_000, help="of a trial on a GPU")
    parser.add_argument("--no-mps", dest="mps", action="store_false")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        os.environ.setdefault(LOGICAL_GPUS, "1")
    print(header())
    print(f"{args.trials} trials on one {'GPU' if torch.cuda.is_available() else 'logical GPU'}")
    first: tuple[float, float] | None = None
    for per_gpu in args.per_gpu:
        with (
            tempfile.TemporaryDirectory() as folder,
            connected(cpus=max(args.per_gpu), gpus=1),
        ):
            seconds, rows = grid(args, per_gpu, Path(folder))
        pace = rate(rows, per_gpu)
        first = first or (seconds, pace)
        print(
            f"  {per_gpu} at a time: makespan {seconds:6.1f} s ({first[0] / seconds:.2f} times as "
            f"fast), {pace:6.0f} trials an hour ({pace / first[1]:.2f} times as many), "
            f"utilization {busy(rows)}",
            flush=True,
        )


if __name__ == "__main__":
    main()
