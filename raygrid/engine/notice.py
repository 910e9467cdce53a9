"""A notice to this process that it has to go soon: what is running saves its state, nothing begins.

Slurm gives it before a job's time is over or another job takes its place, as SIGUSR1; whoever holds
a driver may give it too. The driver stops with `Moving` once everything is saved, and the command
ends with the status `SAVED_EXIT_STATUS`.
"""

from __future__ import annotations

import signal
import threading
from typing import Any

SAVED_EXIT_STATUS = 75
"""Exit status of a command that saved what it ran and wants to go on later (EX_TEMPFAIL)."""
_given = threading.Event()


def listen() -> None:
    """Have SIGUSR1 mean the notice, in the process's main thread."""

    def note(signum: int, frame: Any) -> None:
        _given.set()

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGUSR1, note)


def given() -> bool:
    """Whether the notice has come."""
    return _given.is_set()
