"""State of unfinished work in a store, so that a killed job goes on where it was. No pickle."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from raygrid.core.errors import Moving, StoreError
from raygrid.core.retry import patiently
from raygrid.storage.results import Json
from raygrid.storage.store import Bundle, Store

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)
CHECKPOINT_TIME_SHARE = 1 / 20
"""The most of its time that a job spends on checkpoints."""


class CheckpointSlot:
    """The newest checkpoint of something unfinished, under a key of its own.

    A checkpoint is complete before the one it replaces is dropped. In a mirrored store it is on
    both sides, so that what a lost machine began goes on elsewhere.
    """

    def __init__(self, store: Store, key: str) -> None:
        self.store, self.key = store, key

    def _numbers(self) -> list[int]:
        names = (name.rpartition(".") for name in self.store.names("partial"))
        return sorted(int(n) for key, _, n in names if key == self.key and n.isdecimal())

    def save(self, bundle: Bundle) -> None:
        old = self._numbers()
        self.store.put("partial", f"{self.key}.{(old or [0])[-1] + 1}", bundle)
        for number in old:
            self.store.drop("partial", f"{self.key}.{number}")

    def load(self) -> Bundle | None:
        return patiently(self._load)

    def _load(self) -> Bundle | None:
        for number in reversed(self._numbers()):
            try:
                found = self.store.get("partial", f"{self.key}.{number}")
            except StoreError as error:
                if error.passing:
                    raise
                log.warning("a checkpoint is not gone on from: %s", error)
                continue
            if found is not None:
                return found
        return None

    def clear(self) -> None:
        """Drop everything; what a store that is away keeps does no harm."""
        with suppress(StoreError):
            for number in self._numbers():
                self.store.drop("partial", f"{self.key}.{number}")


class Checkpointer:
    """Checkpoints now and then; a store that is full or away costs a checkpoint, not the work.

    every: seconds between two, up to ten times as many where saving would take more than
    `CHECKPOINT_TIME_SHARE` of the time. leaving: whether this machine was told that it will be
    taken away; then the state is saved at once, and Moving is raised.
    """

    def __init__(
        self, partial: CheckpointSlot, every: float, leaving: Callable[[], bool] = lambda: False
    ) -> None:
        self.partial, self.every, self.leaving = partial, every, leaving
        self._next = time.monotonic() + every

    def save(self, bundle: Callable[[], Bundle]) -> None:
        leaving, started = self.leaving(), time.monotonic()
        if not leaving and started < self._next:
            return
        try:
            self.partial.save(bundle())
        except StoreError as error:
            log.warning("no checkpoint: %s", error)
        now = time.monotonic()
        self._next = now + min(
            max(self.every, (now - started) / CHECKPOINT_TIME_SHARE), 10 * self.every
        )
        if leaving:
            raise Moving(self.partial.key)


class Progress(Protocol):
    """Where long work says how far it is and keeps what it needs to go on."""

    def report(self, done: int, total: int, **facts: float) -> None:
        """Say that `done` of `total` units are made, with any numbers worth seeing."""

    def save(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Keep a checkpoint; the one before is replaced. The tensors may change after the call."""

    def load(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]] | None:
        """The checkpoint of work that was cut off, or None."""


class NoProgress:
    """Progress that goes nowhere."""

    def report(self, done: int, total: int, **facts: float) -> None: ...

    def save(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None: ...

    def load(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]] | None:
        return None


def save_state(progress: Progress, state: Any) -> None:
    """Keep a nested state, as `pack` takes it."""
    bundle = pack(state, copy=False)
    progress.save(bundle.tensors, bundle.facts)


def load_state(progress: Progress) -> Any | None:
    """The state that `save_state` kept of work that was cut off, or None."""
    saved = progress.load()
    return None if saved is None else unpack(Bundle(saved[0], dict(saved[1])))


def pack(state: Any, copy: bool = True) -> Bundle:
    """A nested state (dicts, lists, tensors, JSON scalars) as a bundle, without pickle.

    copy: the tensors are copies on the CPU; else those of the state itself, to be written at once.
    """
    from torch import Tensor as TorchTensor

    tensors: dict[str, Tensor] = {}

    def walk(value: Any) -> Any:
        if isinstance(value, TorchTensor):
            name = f"t{len(tensors)}"
            tensors[name] = value.detach().cpu().clone() if copy else value.detach()
            return {"tensor": name}
        if isinstance(value, Mapping):
            return {"dict": [[key, walk(item)] for key, item in value.items()]}
        if isinstance(value, list | tuple):
            return {"list": [walk(item) for item in value]}
        return {"value": value}

    return Bundle(tensors, {"state": walk(state)})


def unpack(bundle: Bundle) -> Any:
    """The inverse of `pack` (tuples come back as lists)."""

    def build(node: Json) -> Any:
        if "tensor" in node:
            return bundle.tensors[node["tensor"]].clone()
        if "dict" in node:
            return {key: build(item) for key, item in node["dict"]}
        if "list" in node:
            return [build(item) for item in node["list"]]
        return node["value"]

    return build(bundle.facts["state"])
