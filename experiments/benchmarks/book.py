"""A book of results for minutes with a borrowed device: written as found, ended in time."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from raygrid.core.device import release
from raygrid.core.device_errors import trouble
from raygrid.core.errors import RaygridError


@dataclass
class Book:
    """Results, written as they are found. until: when to start nothing more; end: of it all."""

    path: Path
    until: float
    device: torch.device
    small: bool
    rows: list[dict[str, Any]]
    end: float
    imports: tuple[str, ...] = ()
    data: Path = Path("data")

    def note(self, part: str, what: str, **facts: Any) -> None:
        row = {"part": part, "what": what, **facts}
        self.rows.append(row)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, default=str) + "\n")
        print("  ", what, {k: short(v) for k, v in facts.items()}, flush=True)

    @property
    def left(self) -> float:
        return self.until - time.monotonic()


def short(value: Any) -> Any:
    return round(value, 3) if isinstance(value, float) else value


def attempt(book: Book, part: str, what: str, work: Callable[[], dict[str, Any]]) -> None:
    """Do one thing if there is time, and note what came of it; an error is a result too."""
    if book.left <= 0:
        book.note(part, what, state="no time")
        return
    started, lost = time.perf_counter(), False
    try:
        with within(book.end - time.monotonic()):
            facts = {"state": "ok", **work()}
    except (RaygridError, RuntimeError, AssertionError, TimeOver) as error:
        facts = {"state": "failed", "error": f"{type(error).__name__}: {error}".splitlines()[0]}
        lost = trouble(error) == "lost"
    book.note(part, what, **facts, seconds=time.perf_counter() - started)
    if lost:
        raise Lost(part)
    release(book.device)  # what is left of one attempt is no memory of the next


class TimeOver(BaseException):
    """The time is over; no trial takes this for a fault of its own and makes a row of it."""


class Lost(Exception):
    """The GPU has failed; nothing that this process asks of it is answered any more."""


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """End what is inside once the whole time is over, so that the table is still printed."""

    def over(*_: Any) -> None:
        raise TimeOver("the time is over")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.1))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Markdown: a row for every result."""
    yield "| part | what | state | seconds | figures |"
    yield "|---|---|---|---|---|"
    hidden = {"part", "what", "state", "seconds", "status", "device"}
    for row in rows:
        figures = ", ".join(f"{k} {short(v)}" for k, v in row.items() if k not in hidden)
        seconds = f"{row['seconds']:.1f}" if "seconds" in row else ""
        yield f"| {row['part']} | {row['what']} | {row['state']} | {seconds} | {figures} |"
