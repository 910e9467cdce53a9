"""Ray's processes of a driver that was killed: the next run in its folder ends them.

Ray's own processes notice after up to two minutes that the driver that started them is gone. Until
then they hold memory and ports that the next run wants.
"""

from __future__ import annotations

import json
import logging
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

from raygrid.storage.machine import born, lives, machine

log = logging.getLogger(__name__)
RAY_NOTE_FILE = ".ray.json"


def children() -> set[int]:
    """The processes that this one has started, and those that they have."""
    import psutil  # Ray brings it along

    return {child.pid for child in psutil.Process().children(recursive=True)}


def note_started(folder: Path, before: set[int]) -> None:
    """Write down which processes were started since `before` was asked for, and by whom."""
    pids = sorted(children() - before)
    note = {
        "machine": machine(),
        "driver": [os.getpid(), born(os.getpid())],
        "started": [[pid, born(pid)] for pid in pids],
    }
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RAY_NOTE_FILE).write_text(json.dumps(note), encoding="utf-8")


def forget(folder: Path) -> None:
    """The processes were ended."""
    with suppress(OSError):
        (folder / RAY_NOTE_FILE).unlink()


def end_leftovers(folder: Path) -> int:
    """End what a dead driver of this machine left behind, and say so; how many processes.

    A process is known by its number and its beginning, so no other one is ended.
    """
    with suppress(OSError, ValueError, LookupError, TypeError):
        note = json.loads((folder / RAY_NOTE_FILE).read_text(encoding="utf-8"))
        if note["machine"] != machine() or lives(*note["driver"]):
            return 0
        ended = sum(map(_end, note["started"]))
        if ended:
            log.warning("%d processes of Ray were left by a run that was killed; ended", ended)
        forget(folder)
        return ended
    return 0


def _end(entry: Any) -> bool:
    pid, beginning = entry
    if not (isinstance(pid, int) and pid > 1 and beginning and lives(pid, beginning)):
        return False
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    return True
