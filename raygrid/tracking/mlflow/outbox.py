"""What waits to be told to MLflow: updates about trials, and files of tables."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from raygrid.trials.result import History, Result

UPDATES, EPOCHS = 1_000, 500


@dataclass
class Update:
    """What is still to be told about one trial: that it runs, new epochs, or its row.

    start: s since 1970. refused: how often MLflow refused the update for good.
    """

    spec: str
    resolved: dict[str, Any]
    start: float = field(default_factory=time.time)
    epochs: History = field(default_factory=list)
    result: Result | None = None
    refused: int = 0

    def json(self) -> dict[str, Any]:
        """As JSON values (numbers that are not finite among them)."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        result = value["result"] and Result.from_row(value["result"])
        return cls(**{**value, "result": result})

    def add(self, newer: Update) -> None:
        """Make this update say what `newer` says too; a row says all that its epochs say."""
        self.result = newer.result or self.result
        self.epochs = [] if self.result else (self.epochs + newer.epochs)[-EPOCHS:]


class Outbox:
    """Letters by trial, merged while they wait, so that a slow store gets few large ones.

    Bounded: an update holds the latest `EPOCHS` epochs (its row has all of them), and of rows
    beyond `UPDATES` only the keys are kept (the result log has the rows).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._updates: dict[str, Update] = {}
        self._late: set[str] = set()
        self._files: list[Path] = []

    def __len__(self) -> int:
        with self._lock:
            return len(self._updates) + len(self._late) + len(self._files)

    def put(self, key: str, update: Update) -> None:
        with self._lock:
            if key in self._updates:
                self._updates[key].add(update)
            elif len(self._updates) < UPDATES:
                self._updates[key] = update
            elif update.result is not None:
                self._late.add(key)

    def put_late(self, keys: set[str]) -> None:
        """Trials whose rows lie in the result log."""
        with self._lock:
            self._late |= keys

    def put_files(self, files: Sequence[Path]) -> None:
        with self._lock:
            self._files = list(dict.fromkeys([*self._files, *files]))

    def take(self) -> tuple[str, Update] | None:
        """The update that has waited longest."""
        with self._lock:
            key = next(iter(self._updates), None)
            return None if key is None else (key, self._updates.pop(key))

    def give_back(self, key: str, update: Update) -> None:
        """An update that could not be delivered; it goes to the end of the line."""
        with self._lock:
            newer = self._updates.pop(key, None)
            if newer is not None:
                update.add(newer)
            self._updates[key] = update

    def late(self) -> set[str]:
        with self._lock:
            return set(self._late)

    def files(self) -> list[Path]:
        with self._lock:
            return list(self._files)

    def told(self, key: str) -> None:
        """The row of a trial in the log has been dealt with."""
        with self._lock:
            self._late.discard(key)

    def delivered(self, late: set[str], files: Sequence[Path]) -> None:
        with self._lock:
            self._late -= late
            self._files = [file for file in self._files if file not in files]
