"""The results of trials: one JSON object a line, the truth that everything else is derived from."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from raygrid.core.errors import StoreError, may_pass

Json = dict[str, Any]


class ResultLog:
    """One JSON object a line, appended and flushed to disk; the last line of a key counts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(f"{path}.lock")

    def append(self, row: Json) -> None:
        """Add a row durably; a torn last line of a killed writer is closed off first."""
        line = json.dumps(row, sort_keys=True) + "\n"
        try:
            with self._lock, self.path.open("ab+") as file:
                if file.tell() and not self._ends_line(file):
                    line = "\n" + line
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            why = f"cannot append to {self.path}: {error.strerror}"
            raise StoreError(why, may_pass(error)) from error

    @staticmethod
    def _ends_line(file: Any) -> bool:
        file.seek(-1, os.SEEK_END)
        return bool(file.read(1) == b"\n")

    def rows(self) -> Iterator[Json]:
        """The latest row of each key, in the order in which keys first came."""
        latest: dict[str, Json] = {}
        with suppress(FileNotFoundError):
            for line in self.path.read_text().splitlines():
                with suppress(json.JSONDecodeError):
                    row = json.loads(line)
                    latest[row["key"]] = row
        yield from latest.values()

    def close(self) -> None:
        """The run is over; a mirrored log uploads what it still holds."""

    def done(self) -> set[str]:
        """Keys that need no further run: finished, diverged, or skipped."""
        return {row["key"] for row in self.rows() if row["status"] != "failed"}
