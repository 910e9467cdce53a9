"""Processes of a job on this machine: none of them outlives the one that started it all.

Ray's workers leave the process group of the Ray that started them, and their parent may die before
them. The kernel hands such orphans to the process that has asked for them, which then ends them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from raygrid.storage.machine import ENDED_STATES, facts

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
KILL_SECONDS = 5.0  # seconds in which killed processes have to be gone


def adopt_orphans() -> None:
    """Become the parent of every descendant of this process whose own parent dies (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_on_sigterm() -> None:
    """Have SIGTERM end this process in good order, and those that follow change nothing."""

    def end(signum: int, frame: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.exit(128 + signum)

    signal.signal(signal.SIGTERM, end)


def descendants(root: int) -> list[int]:
    """Children of a process and their children, at any distance; without those that have ended."""
    parents: dict[int, list[int]] = {}
    for pid in (int(folder.name) for folder in Path("/proc").glob("[0-9]*")):
        said = facts(pid)
        if said and said[0] not in ENDED_STATES:
            parents.setdefault(int(said[1]), []).append(pid)
    found, open_ = [], [root]
    while open_:
        children = parents.get(open_.pop(), [])
        found += children
        open_ += children
    return found


def end_descendants() -> None:
    """Kill every process that this one has started or adopted, and those that they still start."""
    end = time.monotonic() + KILL_SECONDS
    while (alive := descendants(os.getpid())) and time.monotonic() < end:
        for pid in alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
