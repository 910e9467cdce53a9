"""The faults of the soak. Each says whether it could strike."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import time
from collections.abc import Callable

from soaking.rounds import Round


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
    kept = sorted(p for p in (round_.store / "store" / "artifacts").rglob("*") if p.is_file())
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
    notes = (
        [json.loads(p.read_text(encoding="utf-8")) for p in rows.glob("*.json")]
        if rows.is_dir()
        else []
    )
    keys = sorted({key for note in notes for key in note["keys"]})
    if not keys:
        return False
    note = {"host": "gone", "boot": "x", "pid": 7, "born": "1", "beat": 3, "keys": keys}
    (rows / f"dead{round_.rng.randrange(10**6)}.json").write_text(
        json.dumps(note), encoding="utf-8"
    )
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


Fault = Callable[[Round], bool]
FAULTS: tuple[Fault, ...] = (
    *(driver_killed, worker_killed, raylet_killed, writer_killed, driver_stopped),
    *(store_full, files_damaged, claim_of_the_dead, database_locked),
)
