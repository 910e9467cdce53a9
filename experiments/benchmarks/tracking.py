"""What MLflow adds to the time of a grid: the same grid without it and with it, in one run.

    python experiments/benchmarks/tracking.py [--trials 1000] [--seconds 0.3]

The trials wait in place of training: twelve epochs of `--seconds` in all, each with a poison and
its picture. Prints the time of both, what MLflow added, and the CPU seconds of its writer, which
has a process of its own: what it would add where the grid has all cores.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

from header import header

from raygrid.api.run_grid import Options, run_grid
from raygrid.engine.events import Listener

EPOCHS = 12
QUICK = 8.2  # seconds of a trial of the quick grid, the mean of 24 on one core of an AMD EPYC


def timed(out: Path, specs: list[str], tracking: bool) -> float:
    """Seconds of a grid from its plan until everything is written."""
    listeners: list[Listener] = []
    started = time.perf_counter()
    if tracking:
        from raygrid.tracking.mlflow import Tracker

        listeners.append(Tracker(out, own=True))
    options = Options(out=out, executor="inline", imports=("idle",), quiet=True)
    outcome = run_grid(specs, options, *listeners)
    assert sum(result.status == "done" for result in outcome.results) == len(specs)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=0.3, help="of a trial")
    args = parser.parse_args()
    print(header())
    one = f"blank/lsp/none/small_cnn/idle(seconds={args.seconds / EPOCHS})/idle(epochs={EPOCHS})"
    specs = [f"{one}/{seed}" for seed in range(args.trials)]
    with tempfile.TemporaryDirectory() as folder:
        timed(Path(folder) / "warm", specs[:3], False)  # what is imported and compiled once
        without = timed(Path(folder) / "without", specs, False)
        with_it = timed(Path(folder) / "with", specs, True)
        files = [file for file in (Path(folder) / "with" / "mlartifacts").rglob("*")]
        size = sum(file.stat().st_size for file in files if file.is_file()) / 1e6
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    writer = used.ru_utime + used.ru_stime
    added = with_it - without
    print(f"{args.trials} trials of {args.seconds} s: {without:.1f} s, with MLflow {with_it:.1f} s")
    print(f"  added: {added:.1f} s, {100 * added / without:.1f} %; artifacts {size:.0f} MB")
    print(
        f"  CPU of the writer: {writer:.1f} s, {1000 * writer / args.trials:.0f} ms a trial; "
        f"{100 * writer / (args.trials * QUICK):.1f} % of trials of {QUICK} s on one core"
    )
    print(f"  load of the machine, whose cores others use too: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
