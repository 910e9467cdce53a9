"""The engine against plain Ray tasks, and what a shared poison costs in memory.

    python experiments/benchmarks/engine.py [--trials 200] [--seconds 1] [--cpus 2]

Both run on the same local cluster, one after the other. Tune's workers are processes of their own.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import ray
from header import header

from raygrid.api.run_grid import Options, run_grid
from raygrid.engine.ray.executor import connected
from raygrid.trials.result import Result


@ray.remote(num_cpus=1)
def nap(seconds: float) -> float:
    """A plain task that does what an idle trial does, in a process that has torch."""
    import torch

    time.sleep(seconds)
    return float(torch.zeros(1))


def plain(trials: int, seconds: float) -> float:
    started = time.perf_counter()
    ray.get([nap.remote(seconds) for _ in range(trials)])
    return time.perf_counter() - started


def grid(specs: list[str], folder: Path) -> tuple[float, float, list[Result]]:
    """Seconds from the call until the last trial is done and until the call returns, and rows."""
    options = Options(out=folder, executor="ray", imports=("idle",), quiet=True)
    started = time.time()
    outcome = run_grid(specs, options)
    whole = time.time() - started
    assert [r.status for r in outcome.results] == ["done"] * len(specs)
    return max(r.finished for r in outcome.results) - started, whole, outcome.results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--sharers", type=int, default=100)
    args = parser.parse_args()
    print(header())
    spec = "blank/clean/none/small_cnn/idle(seconds={})/idle/{}"
    with tempfile.TemporaryDirectory() as folder, connected(cpus=args.cpus):
        base = plain(args.trials, args.seconds)
        specs = [spec.format(args.seconds, seed) for seed in range(args.trials)]
        ours, whole, _ = grid(specs, Path(folder) / "many")
        print(f"{args.trials} trials of {args.seconds} s on {args.cpus} CPUs")
        print(f"  plain Ray tasks {base:7.1f} s")
        print(f"  raygrid         {ours:7.1f} s   ratio {ours / base:.3f}")
        print(f"  with all tables {whole:7.1f} s")
        shared = "blank(images=50000)/lsp@1.0/none/small_cnn/idle(seconds={},watch=true)/idle/0"
        specs = [shared.format(i / 1000) for i in range(args.sharers)]
        seconds, _, rows = grid(specs, Path(folder) / "shared")
        grown = sorted(row.history[0]["grown_mb"] for row in rows)
        poisons = {row.artifacts["poison"] for row in rows}
        print(f"{args.sharers} trials that want one poison of 154 MB: {seconds:.1f} s")
        print(f"  {len(poisons)} poison made; private growth of a trial: median", end=" ")
        print(f"{grown[len(grown) // 2]:.1f} MB, largest {grown[-1]:.1f} MB")


if __name__ == "__main__":
    main()
