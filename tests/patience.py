"""Waiting for progress instead of seconds: a loaded machine is slow, which is no fault."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any


def crowd() -> float:
    """How many processes want each core of this machine, 1 at least."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def until(
    found: Callable[[], Any],
    seconds: float,
    story: Callable[[], str],
    progress: Callable[[], Any] = lambda: None,
) -> Any:
    """Ask again and again; what was found, or a failure that tells the story.

    seconds: of a machine with nothing else to do, in which `progress` says nothing new.
    """
    waited, seen, before = 0.0, progress(), time.monotonic()
    while waited < seconds:
        if (value := found()) is not None:
            return value
        time.sleep(0.1)
        now = time.monotonic()
        waited, before = waited + (now - before) / crowd(), now
        if (latest := progress()) != seen:
            waited, seen = 0.0, latest
    raise AssertionError(f"did not happen in {seconds:.0f} s without progress: {story()}")
