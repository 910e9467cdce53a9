"""A small grid again and again under random faults, beside the same grid undisturbed.

    python experiments/benchmarks/soak.py --minutes 30 --seed 0

In each round a driver on a Ray of its own meets some of `soaking.faults.FAULTS` at random moments
and is started again until it ends well. Then the round must hold what the undisturbed run holds:
the same rows, each trial trained to its end once, one finished run of MLflow for each, and no
process left. Which faults come when is drawn from the seed and the round's number; where they
strike depends on the machine too. Prints a line for every round: the faults that struck, those that
did not because the grid was through before or had nothing to strike, how its drivers ended, and
what is not as undisturbed; exit status 1 if that is anything.

The store that fills up is a small tmpfs, which only root may mount; others go without that fault,
which is said. Nothing outside of the folder that it makes is touched.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from header import header
from same_runs import rows_of
from soaking.faults import FAULTS, Fault, files_damaged
from soaking.findings import findings
from soaking.rounds import Round

STORE = 48 * 2**20
"""Bytes of the store that can be full."""
ATTEMPTS = 12
"""How often a driver is started again in a round before that is a finding."""
PATIENCE = 15.0
"""Seconds that a fault waits for something to strike: a driver that starts has no claim yet."""
Due = list[tuple[float, Fault]]
"""Faults in their order, each with the seconds after the start or the fault before."""


def soak(round_: Round, faults: Due) -> Iterator[str]:
    """Run the grid to its end under these faults; findings. What was not struck is noted."""
    for _attempt in range(ATTEMPTS):
        round_.start()
        whole = _strike(round_, faults)
        if round_.end() == 0 and whole:
            break
    else:
        yield f"{ATTEMPTS} drivers one after the other did not end well"
    round_.missed += [f"{fault.__name__} (the grid was through)" for _, fault in faults]


def _strike(round_: Round, faults: Due) -> bool:
    """Let faults strike while the driver lives; those that are still due stay in the list.

    Whether none struck what a driver had left when it was gone.
    """
    while faults and round_.lives():
        wait, fault = faults[0]
        with contextlib.suppress(subprocess.TimeoutExpired):
            assert round_.driver is not None
            round_.driver.wait(wait)
        lived = round_.lives()
        if not lived and fault is not files_damaged:
            return True
        faults.pop(0)
        if not _struck(round_, fault):
            round_.missed.append(f"{fault.__name__} (nothing to strike)")
            continue
        round_.struck.append(fault.__name__)
        if not lived:
            return False
    return True


def _struck(round_: Round, fault: Fault) -> bool:
    """Let a fault strike, as soon as there is something to strike; whether there was."""
    end = time.monotonic() + PATIENCE
    while not (struck := fault(round_)) and round_.lives() and time.monotonic() < end:
        time.sleep(min(1.0, PATIENCE))
    return struck


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """A tmpfs of `STORE` bytes, or a plain folder where nothing may be mounted."""
    place.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={STORE}", "tmpfs", str(place)]
    mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield place
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(place)], check=False)


def undisturbed(base: Path) -> tuple[dict[str, dict[str, Any]], float]:
    """The rows of the grid without faults, and the seconds that it took."""
    started = time.monotonic()
    quiet = Round(base / "whole", base / "whole" / "disk", 0.0, random.Random(0))
    quiet.start()
    if quiet.end() != 0:
        raise SystemExit(f"the undisturbed run failed:\n{quiet.log.read_text(encoding='utf-8')}")
    return rows_of(quiet.out), time.monotonic() - started


def line(round_: Round, seconds: float, found: list[str]) -> str:
    """What a person is told of a round."""
    said = [", ".join(round_.struck) or "no fault struck"]
    if round_.missed:
        said.append(f"not struck: {', '.join(round_.missed)}")
    said.append(f"drivers ended with {', '.join(map(str, round_.statuses))}")
    return "; ".join([*said, f"{seconds:.0f} s", *(found or ["as undisturbed"])])


def options() -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--minutes", type=float, default=30.0, help="no round begins after them")
    parser.add_argument("--seed", type=int, default=0, help="which faults come when")
    parser.add_argument(
        "--pause", type=float, default=60.0, help="seconds that a driver is stopped"
    )
    parser.add_argument("--keep", action="store_true", help="leave the folders of good rounds too")
    return parser.parse_args()


def main() -> int:
    args = options()
    base = Path(tempfile.mkdtemp(prefix="soak", dir="/tmp"))
    print(header(), flush=True)
    reference, took = undisturbed(base)
    print(f"undisturbed: {len(reference)} trials in {took:.0f} s", flush=True)
    end, number, faulty = time.monotonic() + 60 * args.minutes, 0, 0
    while number == 0 or time.monotonic() < end:
        rng = random.Random(f"{args.seed} {number}")
        faults = [(rng.uniform(0.1, 0.7) * took, f) for f in rng.sample(FAULTS, rng.randint(1, 3))]
        with small_disk(base / f"disk{number}") as store:
            round_ = Round(base / f"{number}", store, args.pause, rng)
            started = time.monotonic()
            found = [*soak(round_, faults), *findings(round_, reference)]
        print(f"round {number}: {line(round_, time.monotonic() - started, found)}", flush=True)
        faulty, number = faulty + bool(found), number + 1
        if not found and not args.keep:
            shutil.rmtree(round_.folder, ignore_errors=True)
    print(f"{number} rounds, {faulty} with findings; {base}", flush=True)
    return 1 if faulty else 0


if __name__ == "__main__":
    sys.exit(main())
