"""Which machine this is, and whether a process of it lives."""

from __future__ import annotations

import functools
import os
import socket
from contextlib import suppress
from pathlib import Path


@functools.cache
def _boot() -> str:
    """What sets this start of this machine, or this container, apart; empty where nothing does."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return ""


def machine() -> str:
    """This machine since it was started: containers that share a name are different ones."""
    return f"{socket.gethostname()} {_boot()}".strip()


def born(pid: int) -> str:
    """When a process began, as the system counts; empty where it does not tell.

    A number of a process is used again, its number and its beginning are not.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    return fields[19]


def lives(pid: int, beginning: str = "") -> bool:
    """Whether a process of this machine lives that began then, if that is known."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return not beginning or beginning == born(pid)
