"""What happened on the pretend device since it was last set to zero."""

from __future__ import annotations

import collections
import sys
from dataclasses import dataclass, field
from pathlib import Path

WATCHED = str(Path(__file__).parents[3] / "raygrid") + "/"
Counts = collections.Counter[tuple[str, ...]]


class Mixed(RuntimeError):
    """What CUDA would have refused."""


@dataclass
class Log:
    """What happened since the last `reset`. Keys of the counters: (operator, file:line)."""

    strict: bool = True
    kernels: Counts = field(default_factory=collections.Counter)
    syncs: Counts = field(default_factory=collections.Counter)
    uploads: Counts = field(default_factory=collections.Counter)
    upload_bytes: Counts = field(default_factory=collections.Counter)
    download_bytes: Counts = field(default_factory=collections.Counter)
    wrong: Counts = field(default_factory=collections.Counter)
    drawn: Counts = field(default_factory=collections.Counter)
    chaotic: Counts = field(default_factory=collections.Counter)
    live: int = 0
    peak: int = 0
    sites: bool = False  # kernels by place too (slow)
    made: list[str] = field(default_factory=list)  # generators of the device

    def reset(self) -> None:
        for value in vars(self).values():
            if isinstance(value, collections.Counter | list):
                value.clear()
        self.peak = self.live

    def refuse(self, op: str, why: str) -> None:
        place = where()
        self.wrong[(op, why, place)] += 1
        if self.strict:
            raise Mixed(f"{op} at {place}: {why}")


LOG = Log()


def where() -> str:
    """The innermost line of the watched code that is running, and its caller there."""
    frame = sys._getframe(2)
    found: list[str] = []
    while frame is not None and len(found) < 2:
        name = frame.f_code.co_filename
        if name.startswith(WATCHED):
            found.append(f"{name.removeprefix(WATCHED)}:{frame.f_lineno}")
        frame = frame.f_back
    return " < ".join(found) or "outside"
