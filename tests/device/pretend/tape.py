"""A recording of the pretend device, which obeys the rules of a CUDA graph.

What is recorded is not done: whatever it wrote to is put back. A replay does the same operations
on the same memory; nothing in it may make the host wait.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from tests.device.pretend.log import LOG
from tests.device.pretend.tensors import tensors

TAPES: list[Tape] = []
"""The one that records, if any does."""


@dataclass
class Tape:
    """Operations in order, the storages that they made, and those that were there before."""

    steps: list[tuple[Callable[[], Any], Any]] = field(default_factory=list)
    made: set[int] = field(default_factory=set)
    before: dict[int, tuple[Any, Any]] = field(default_factory=dict)
    kept: list[Any] = field(default_factory=list)
    replays: int = 0

    def meets(self, args: Any) -> None:
        """Remember what was there before an operation may write to it."""
        for t in tensors(args):
            storage = t.untyped_storage()
            if storage._cdata not in self.made and storage._cdata not in self.before:
                self.before[storage._cdata] = storage, storage.clone()

    def note(self, call: Callable[[], Any], out: Any) -> None:
        self.steps.append((call, out))
        for t in tensors([out]):
            storage = t.untyped_storage()
            if storage._cdata not in self.before:
                self.made.add(storage._cdata)
            self.kept.append(storage)  # or another would get its address

    def restore(self) -> None:
        for storage, values in self.before.values():
            storage.copy_(values)

    def replay(self) -> None:
        self.replays += 1
        with torch.no_grad():
            self._play()

    def _play(self) -> None:
        for call, out in self.steps:
            for old, new in zip(tensors([out]), tensors([call()]), strict=True):
                if old.untyped_storage()._cdata != new.untyped_storage()._cdata:
                    old.copy_(new)


def waited() -> int:
    """What made the host wait so far."""
    uploads = sum(n for (name, _), n in LOG.uploads.items() if "non_blocking" not in name)
    return sum(LOG.syncs.values()) + uploads


class PretendRecorder:
    """Records on the pretend device. tapes: all of them."""

    tapes: list[Tape]

    def __init__(self) -> None:
        self.tapes = []

    def __call__(self) -> PretendRecorder:
        return self

    @contextlib.contextmanager
    def waits(self) -> Iterator[list[str]]:
        found: list[str] = []
        before = waited()
        yield found
        found.extend(["waited"] * (waited() - before))

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        tape, before = Tape(), waited()
        TAPES.append(tape)
        try:
            work()
        finally:
            TAPES.pop()
            tape.restore()
        if waited() != before:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        self.tapes.append(tape)
        return tape.replay


def recorded(do: Callable[..., Any], func: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Do an operation on bare values, and note it if somebody records."""
    if not TAPES:
        return do(func, args, kwargs)
    tape = TAPES[-1]
    tape.meets([args, list(kwargs.values())])
    out = do(func, args, kwargs)
    tape.note(lambda: do(func, args, kwargs), out)
    return out
