"""The run folders of a page: their rows, and what there is to know of each as a whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from raygrid.core.errors import DataError
from raygrid.core.text import clock
from raygrid.reports.tables.kinds import CellSource, all_tables
from raygrid.reports.tables.layout import Table
from raygrid.reports.tables.trial_lines import ResultRow, in_order, trial_lines
from raygrid.storage.results import RESULT_STATES, log_of


@dataclass(frozen=True)
class RunFolder:
    """What a run left in a folder. label: its name on the page; warning: about broken lines."""

    label: str
    path: Path
    rows: tuple[ResultRow, ...]
    warning: str = ""

    @cached_property
    def source(self) -> CellSource:
        """The cells of its rows."""
        return CellSource(trial_lines(self.rows))

    @cached_property
    def tables(self) -> list[Table]:
        """Every table that its rows suffice for."""
        return all_tables(self.source)


def read_folders(paths: Sequence[Path]) -> list[RunFolder]:
    """The folders at these paths; raises DataError for one that holds no results."""
    twice = [str(path) for path, count in Counter(p.absolute() for p in paths).items() if count > 1]
    if twice:
        raise DataError(f"{twice[0]} is given twice; a column of the page is one folder")
    return [_read(path, label) for path, label in zip(paths, labels_of(paths), strict=True)]


def _read(path: Path, label: str) -> RunFolder:
    log = log_of(path)
    if not log.path.exists():
        raise DataError(f"{path} holds no results.jsonl; give the folder of a run (--out of it)")
    rows = tuple(in_order(log.rows()))
    if not rows:
        raise DataError(f"there are no results under {path}; {log.warning() or 'the log is empty'}")
    return RunFolder(label, path, rows, log.warning())


def labels_of(paths: Sequence[Path]) -> list[str]:
    """A name a folder: its last part, or as much of its end as tells all of them apart."""
    parts = [path.absolute().parts for path in paths]
    for length in range(1, max(map(len, parts), default=1) + 1):
        labels = ["/".join(names[-length:]) for names in parts]
        if len(set(labels)) == len(labels):
            return labels
    return [str(path) for path in paths]


def summary(folder: RunFolder) -> dict[str, Any]:
    """What the head of the page says of a folder, as text by what it is about."""
    rows = folder.rows
    status = Counter(str(row["status"]) for row in rows)
    said = [f"{status[name]} {name}" for name in RESULT_STATES if status[name]]
    seconds = sum(float(row.get("seconds") or 0.0) for row in rows)
    return {
        "label": folder.label,
        "facts": {
            "trials": f"{len(rows)} ({', '.join(said)})",
            "commit": _listed(row.get("commit") for row in rows),
            "device": _listed(row.get("device") for row in rows),
            "time of all trials": clock(seconds),
            "torch": _listed((row.get("versions") or {}).get("torch") for row in rows),
        },
        "warning": folder.warning,
    }


def _listed(values: Iterable[Any]) -> str:
    """The values that occur, the most frequent first."""
    found = Counter(str(value) for value in values if value)
    return ", ".join(name for name, _ in found.most_common()) or "not known"
