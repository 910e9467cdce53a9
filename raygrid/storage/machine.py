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


ENDED_STATES = "ZX"
"""States of a process that has ended: one for which nobody has waited yet is still listed."""


def facts(pid: int) -> list[str]:
    """What Linux says of a process behind its name: its state, its parent; empty without it."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()  # the name may hold spaces and brackets


def born(pid: int) -> str:
    """When a process began, as the system counts; empty where it does not tell.

    A number of a process is used again, its number and its beginning are not.
    """
    return _beginning(facts(pid))


def _beginning(found: list[str]) -> str:
    return found[19] if found else ""


def lives(pid: int, beginning: str = "") -> bool:
    """Whether a process of this machine lives that began then, if that is known."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    found = facts(pid)
    if found and found[0] in ENDED_STATES:
        return False
    return not beginning or beginning == _beginning(found)
