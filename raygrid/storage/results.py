"""The results of trials: one JSON object a line, the truth that everything else is derived from."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from raygrid.core.errors import StoreError, may_pass
from raygrid.storage.lines import append_line

Json = dict[str, Any]


TABLES_MARK = ".tables"
"""In the folder of a run: the bytes of `results.jsonl` of which its tables are."""
RESULT_STATES = ("done", "diverged", "failed")
LAST_SECOND = 1e12
"""A time in seconds since 1970 beyond which there is no date."""
ACCURACY_FIELDS = ("peak_acc", "final_acc", "last_acc", "knn_peak", "probe_peak", "probe_final")


@dataclass(frozen=True)
class BrokenLine:
    """A line that is no row. number: counted from 1."""

    number: int
    reason: str
    content: bytes


def read_row(line: bytes) -> Json:
    """The row of a line; raises ValueError, in a few words, for a line that cannot be one.

    A row is an object with a key, a spec and a known status whose accuracies lie in [0, 1].
    """
    try:
        row = json.loads(line)
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except (ValueError, RecursionError):
        raise ValueError("it is no JSON") from None
    if not isinstance(row, dict):
        raise ValueError(f"it holds a {type(row).__name__}, not an object")
    check_row(row)
    return row


def check_row(row: Json) -> None:
    """Raise ValueError, which says why, for an object that is no row of a trial."""
    for name in ("key", "spec"):
        if not isinstance(row.get(name), str):
            raise ValueError(f"it has no {name}")
    if row.get("status") not in RESULT_STATES:
        raise ValueError(f"its status is {row.get('status')!r}")
    for name in ACCURACY_FIELDS:
        value = row.get(name)
        if value is not None and not _is_between(value, 1):
            raise ValueError(f"its {name} is {value!r:.60}, not a number from 0 to 1")
    finished = row.get("finished")
    if finished is not None and not _is_between(finished, LAST_SECOND):
        raise ValueError(f"its finished is {finished!r:.60}, not seconds since 1970")


def _is_between(value: Any, most: float) -> bool:
    """Whether a value is a number from 0 to `most`, which NaN and infinity are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most


def when(row: Json) -> float:
    """When its trial was over, in seconds since 1970."""
    return float(row.get("finished") or 0.0)


def precedence(row: Json) -> tuple[bool, float]:
    """What decides between two rows of a key, the larger one counts.

    A trial that has come to an end keeps it whatever becomes of later attempts, such as for what is
    to be kept of it; among equals the last one counts.
    """
    return row.get("status") in ("done", "diverged"), when(row)


def best(rows: Iterable[Json]) -> dict[str, Json]:
    """The rows by key, in the order in which keys first came; of several the one that counts."""
    found: dict[str, Json] = {}
    for row in rows:
        if row["key"] not in found or precedence(found[row["key"]]) <= precedence(row):
            found[row["key"]] = row
    return found


RESULTS_FILE = "results.jsonl"
"""The name of the log in the folder of a run."""
REPORT_FILE = "report.html"
"""The name of the report page there."""


class ResultLog:
    """One JSON object a line, appended and flushed to disk; of a key's lines the best counts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(f"{path}.lock")

    def append(self, row: Json) -> None:
        """Add a row durably; a torn last line of a killed writer is closed off first.

        Raises StoreError, and leaves nothing of the row, where the disk is full.
        """
        try:
            with self._lock:
                append_line(self.path, json.dumps(row, sort_keys=True))
        except OSError as error:
            why = f"cannot append to {self.path}: {error.strerror}"
            raise StoreError(why, may_pass(error)) from error

    def take_over(self, rows: Iterable[Json]) -> dict[str, Json]:
        """Append rows from elsewhere that are missing here or count more; those before, by key."""
        here = best(self.attempts())
        for key, row in best(rows).items():
            if key not in here or precedence(here[key]) < precedence(row):
                ResultLog.append(self, row)  # not a mirror's own: it would send them back
        return here

    def rows(self) -> Iterator[Json]:
        """The row that counts of each key, in the order in which keys first came."""
        yield from best(self.attempts()).values()

    def attempts(self, since: float = -math.inf) -> Iterator[Json]:
        """All rows that were over after a time, broken lines aside: several of a key, if tried."""
        for row in self._lines():
            if not isinstance(row, BrokenLine) and when(row) > since:
                yield row

    def broken(self) -> list[BrokenLine]:
        """The lines that are no rows and that nobody uses."""
        return [row for row in self._lines() if isinstance(row, BrokenLine)]

    def _lines(self) -> Iterator[Json | BrokenLine]:
        """What every line says; empty ones close off a torn one and count for nothing."""
        with suppress(FileNotFoundError), self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    yield read_row(line)
                except ValueError as error:
                    yield BrokenLine(number, str(error), line)

    def warning(self) -> str:
        """What a person has to know about broken lines; empty if there are none."""
        found = self.broken()
        if not found:
            return ""
        named = ", ".join(f"{line.number} ({line.reason})" for line in found[:5])
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        return f"{len(found)} broken lines in {self.path} are not used: {named}{more}"

    def set_aside(self) -> Path | None:
        """Copy broken lines to `<name>.broken` beside the log, each once; None without any."""
        found = self.broken()
        if not found:
            return None
        aside = self.path.with_suffix(".broken")
        kept = set(aside.read_bytes().splitlines()) if aside.exists() else set()
        with aside.open("ab") as file:
            for line in found:
                content = line.content.rstrip(b"\r\n")
                if content not in kept:
                    file.write(content + b"\n")
        return aside

    def close(self) -> None:
        """The run is over; a mirrored log uploads what it still holds."""


def log_of(out: Path) -> ResultLog:
    """The log of a run's folder."""
    return ResultLog(out.absolute() / RESULTS_FILE)
