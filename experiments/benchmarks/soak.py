"""A small grid again and again under random faults, beside the same grid undisturbed.

    python experiments/benchmarks/soak.py --minutes 30 --seed 0

In each round a driver on a Ray of its own meets some of `FAULTS` at random moments and is started
again until it ends well. Then the round must hold what the undisturbed run holds: the same rows,
each trial run to its end once, one finished run of MLflow for each, and no process left. Which
faults come when is drawn from the seed and the round's number; where they strike depends on the
machine too. Prints a line for every round and what it found; exit status 1 if that is anything.

The store that fills up is a small tmpfs, which only root may mount; others go without that fault,
which is said. Nothing outside of the folder that it makes is touched.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from header import header
from same_runs import outcome, rows_of

from raygrid.tracking.mlflow import store_uri
from raygrid.tracking.mlflow.client import KEY, PARENT, MlflowExperiment

assert ray.__version__  # imported first: it brings psutil along
import psutil  # noqa: E402

SPECS = [
    f"photo_digits(every=8)/{attack}/{defense}/small_cnn/supervised/quick(epochs={epochs})/{seed}"
    for attack in ("clean", "lsp", "noise")
    for defense in ("none", "jpeg")
    for epochs, seed in ((8, 0), (12, 1))
]
STORE = 48 * 2**20
"""Bytes of the store that can be full."""
ATTEMPTS = 12
"""How often a driver is started again in a round before that is a finding."""
GRACE = 60.0
"""Seconds that processes have to end after the last driver."""


@dataclass
class Round:
    """One run of the grid: its folder, its store, its driver."""

    folder: Path
    store: Path
    pause: float
    rng: random.Random
    driver: subprocess.Popen[bytes] | None = None
    struck: list[str] = field(default_factory=list)

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def start(self) -> None:
        """Start a driver; it is not waited for."""
        words = ["--executor", "ray", "--cpus", "1", "--quiet", "--checkpoint-every", "0.5"]
        words += ["--out", str(self.out), "--store", str(self.store / "store")]
        ray = self.folder / "ray"
        ray.mkdir(parents=True, exist_ok=True)
        env = {**os.environ, "RAY_TMPDIR": str(ray), "RAYGRID_CACHE": str(self.folder / "cache")}
        with (self.folder / "log").open("ab") as log:
            self.driver = subprocess.Popen(
                [sys.executable, "-m", "raygrid", "run", *SPECS, *words],
                env=env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def end(self) -> int:
        """Wait for the driver; its exit status."""
        assert self.driver is not None
        return self.driver.wait()

    def lives(self) -> bool:
        return self.driver is not None and self.driver.poll() is None

    def processes(self) -> list[psutil.Process]:
        """All that belong to this round, known by the folder of their Ray."""
        mine = f"RAY_TMPDIR={self.folder / 'ray'}".encode()
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(OSError, psutil.Error):
                words = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
                if mine in words and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def kill(self, *names: str) -> bool:
        """Kill a process whose command has one of these words, without warning."""
        fits = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if any(name in " ".join(process.cmdline()) for name in names):
                    fits.append(process)
        if not fits:
            return False
        with contextlib.suppress(psutil.Error):
            self.rng.choice(sorted(fits, key=lambda p: p.pid)).kill()
        return True


def driver_killed(round_: Round) -> bool:
    assert round_.driver is not None
    round_.driver.kill()
    return True


def worker_killed(round_: Round) -> bool:
    return round_.kill("ray::")


def raylet_killed(round_: Round) -> bool:
    return round_.kill("raylet/raylet")


def writer_killed(round_: Round) -> bool:
    return round_.kill("raygrid.tracking.mlflow.process")


def driver_stopped(round_: Round) -> bool:
    """As by a laptop that sleeps."""
    assert round_.driver is not None
    os.kill(round_.driver.pid, signal.SIGSTOP)
    time.sleep(round_.pause)
    os.kill(round_.driver.pid, signal.SIGCONT)
    return True


def store_full(round_: Round) -> bool:
    """For a few seconds."""
    if not os.path.ismount(round_.store):
        return False
    filler = round_.store / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(2**16))
    time.sleep(round_.rng.uniform(2, 20))
    filler.unlink()
    return True


def files_damaged(round_: Round) -> bool:
    """A byte flipped in a file of the store, and half a line at the end of the rows."""
    files = sorted(p for p in (round_.store / "store").rglob("*") if p.is_file())
    kept = [p for p in files if p.parts[-4:-3] == ("artifacts",) or "artifacts" in p.parts]
    if not kept:
        return False
    with contextlib.suppress(OSError):
        path = round_.rng.choice(kept)
        content = bytearray(path.read_bytes())
        if content:
            content[round_.rng.randrange(len(content))] ^= 1
            path.write_bytes(content)
    if not round_.lives():  # a living driver may be writing its own line
        with (round_.out / "results.jsonl").open("ab") as file:
            file.write(b'{"spec": "half a li')
    return True


def claim_of_the_dead(round_: Round) -> bool:
    """A driver on a machine that is gone left its note."""
    rows = round_.store / "store" / "claims"
    notes = [json.loads(p.read_text()) for p in rows.glob("*.json")] if rows.is_dir() else []
    keys = sorted({key for note in notes for key in note["keys"]})
    if not keys:
        return False
    note = {"host": "gone", "boot": "x", "pid": 7, "born": "1", "beat": 3, "keys": keys}
    (rows / f"dead{round_.rng.randrange(10**6)}.json").write_text(json.dumps(note))
    return True


def database_locked(round_: Round) -> bool:
    path = round_.out / "mlflow.db"
    if not path.exists():
        return False
    with contextlib.closing(sqlite3.connect(path)) as database, contextlib.suppress(sqlite3.Error):
        database.execute("BEGIN EXCLUSIVE")
        time.sleep(round_.rng.uniform(2, 20))
        database.rollback()
    return True


FAULTS: tuple[Callable[[Round], bool], ...] = (
    *(driver_killed, worker_killed, raylet_killed, writer_killed, driver_stopped),
    *(store_full, files_damaged, claim_of_the_dead, database_locked),
)


def soak(round_: Round, faults: list[tuple[float, Callable[[Round], bool]]]) -> Iterator[str]:
    """Run the grid to its end under these faults, each so many seconds after a start; findings."""
    for _attempt in range(ATTEMPTS):
        round_.start()
        while faults and round_.lives():
            wait, fault = faults[0]
            with contextlib.suppress(subprocess.TimeoutExpired):
                assert round_.driver is not None
                round_.driver.wait(wait)
            if not round_.lives() and fault is not files_damaged:
                break
            faults.pop(0)
            if fault(round_):
                round_.struck.append(fault.__name__)
        status = round_.end()
        if status == 0 and not faults:
            return
        if status == 0:  # the grid was through before they came
            faults.clear()
    yield f"{ATTEMPTS} drivers one after the other did not end well"


def findings(round_: Round, reference: dict[str, dict[str, Any]]) -> Iterator[str]:
    """A line for everything that is not as it was without faults."""
    lines = (round_.out / "results.jsonl").read_bytes().splitlines()
    ended: Counter[str] = Counter()
    for line in lines:
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            ended[row["spec"]] += row["status"] == "done"
    rows = rows_of(round_.out)
    for spec in sorted({*reference, *rows}):
        if ended[spec] != 1:
            yield f"{spec} was run to its end {ended[spec]} times"
        if outcome(rows.get(spec, {})) != outcome(reference.get(spec, {})):
            yield f"{spec} has another row"
    yield from tracked(round_.out, {row["key"] for row in rows.values()})
    end = time.monotonic() + GRACE
    while (left := round_.processes()) and time.monotonic() < end:
        time.sleep(1)
    for process in left:
        with contextlib.suppress(psutil.Error):
            yield f"process {process.pid} is left: {' '.join(process.cmdline())[:80]}"
            process.kill()


def tracked(out: Path, keys: set[str]) -> Iterator[str]:
    """What MLflow has otherwise than one finished run a key under one finished parent."""
    experiment = MlflowExperiment.of(out, store_uri(out))
    runs = experiment.client.search_runs([experiment.id], max_results=5000)
    children = Counter(run.data.tags[KEY] for run in runs if PARENT in run.data.tags)
    parents = [run for run in runs if PARENT not in run.data.tags]
    for key in sorted({*keys, *children}):
        if children[key] != 1:
            yield f"MLflow has {children[key]} runs of {key[:12]}"
    if len(parents) != 1:
        yield f"MLflow has {len(parents)} parents"
    for run in runs:
        if run.info.status != "FINISHED":
            yield f"MLflow's run {run.info.run_name} is {run.info.status}"


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
        raise SystemExit(f"the undisturbed run failed:\n{(quiet.folder / 'log').read_text()}")
    return rows_of(quiet.out), time.monotonic() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0, help="no round begins after them")
    parser.add_argument("--seed", type=int, default=0, help="which faults come when")
    parser.add_argument(
        "--pause", type=float, default=60.0, help="seconds that a driver is stopped"
    )
    parser.add_argument("--keep", action="store_true", help="leave the folders of good rounds too")
    args = parser.parse_args()
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
        seconds = time.monotonic() - started
        print(f"round {number}: {', '.join(round_.struck) or 'no fault struck'}; ", end="")
        print(f"{seconds:.0f} s; {'; '.join(found) or 'as undisturbed'}", flush=True)
        faulty, number = faulty + bool(found), number + 1
        if not found and not args.keep:
            shutil.rmtree(round_.folder, ignore_errors=True)
    print(f"{number} rounds, {faulty} with findings; {base}", flush=True)
    return 1 if faulty else 0


if __name__ == "__main__":
    sys.exit(main())
