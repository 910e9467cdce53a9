"""Many trials that do nothing, through the whole path: what the driver costs a trial.

    python experiments/benchmarks/scale.py [--trials 10000] [--tracking]

Prints the driver's CPU time: what it needs once, until the first trial starts, then a trial in the
first and in the last tenth; its memory, how long the next start takes to see that all is done, and
how long a table over all rows takes.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from header import header

from raygrid.api.run_grid import Options, run_grid
from raygrid.engine.events import Listener
from raygrid.engine.ray.executor import connected
from raygrid.trials.result import Result
from raygrid.trials.trial import Trial


class Clock(Listener):
    """CPU seconds of the driver, all threads: at the first trial's start, at the end of each."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def trial_started(self, trial: Trial) -> None:
        if not self.times:
            self.times.append(time.process_time())

    def trial_finished(self, trial: Trial, result: Result) -> None:
        self.times.append(time.process_time())

    def per_trial(self, tenth: int) -> float:
        """Milliseconds a trial in a tenth of the run, counted from 0."""
        step = max(1, len(self.times) // 10)
        part = self.times[tenth * step : (tenth + 1) * step + 1]
        return 1000 * (part[-1] - part[0]) / (len(part) - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--tracking", action="store_true", help="log to MLflow as well")
    args = parser.parse_args()
    print(header())
    specs = [f"blank/clean/none/small_cnn/idle(seconds=0)/idle/{i}" for i in range(args.trials)]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "many"
        options = Options(out=out, executor="ray", imports=("idle",), quiet=True)
        clock, listeners = Clock(), list[Listener]()
        if args.tracking:
            from raygrid.tracking.mlflow import Tracker

            listeners.append(Tracker(out, own=True))
        with connected(cpus=args.cpus):
            started = time.perf_counter()
            outcome = run_grid(specs, options, clock, *listeners)
            seconds = time.perf_counter() - started
        assert sum(r.status == "done" for r in outcome.results) == args.trials
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"{args.trials} trials in {seconds:.0f} s, {1000 * seconds / args.trials:.0f} ms each"
        )
        print(
            f"  driver {clock.times[0]:.1f} s until the first trial, then "
            f"{clock.per_trial(0):.1f} ms a trial, {clock.per_trial(9):.1f} at the end"
        )
        print(f"  driver memory {memory:.2f} GiB")
        started = time.perf_counter()
        assert run_grid(specs, options).submitted == 0
        print(f"  to see that all is done: {time.perf_counter() - started:.1f} s")
        started = time.perf_counter()
        command = [sys.executable, "-m", "raygrid", "table", "defense", "--import", "idle"]
        subprocess.run([*command, "--out", str(out)], check=True, stdout=subprocess.DEVNULL)
        print(f"  raygrid table: {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
