"""Tables as tidy CSV: one cell a row, plain columns, whole numbers and fractions and words."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

from raygrid.core.text import first_line
from raygrid.reports.tables.layout import Table

TABLE_COLUMNS = (
    *("kind", "dataset", "attack", "poison_ratio", "defense", "architecture", "learner"),
    *("protocol", "metric", "value", "std", "low", "high", "n", "of", "seeds"),
    *("final_acc", "peak_acc", "published", "source"),
)
"""Columns of every table."""
OPTIONAL_COLUMNS = (
    *("published_std", "apart", "contradicting", "differs", "suspect", "published_note"),
    *("failed", "diverged", "stopped", "never", "missing", "fewer_seeds", "why"),
    *("selection", "winners", "worst_learner", "worst_learners", "drop", "control", "p"),
    *("gained", "lost", "other_data", "other_files", "left_out", "budget", "norm"),
)
"""Columns of tables in which some cell has them."""


def csv_text(table: Table) -> str:
    """One line a cell, accuracies as fractions, no cell that has to be taken apart by a parser.

    Lists are words with blanks between them, counts by name are `jpeg 2, bdr 1`; seeds are those
    that have a value. The JSON form has all that is known of a cell, values by seed among it.
    """
    lines = [_line(cell) for cell in table.cells]
    more = [name for name in OPTIONAL_COLUMNS if any(line.get(name) for line in lines)]
    out = io.StringIO()
    writer = csv.DictWriter(
        out, [*TABLE_COLUMNS, *more], extrasaction="ignore", lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def _line(cell: Mapping[str, Any]) -> dict[str, Any]:
    measured = {**cell, "seeds": list(cell["values"])}
    return {name: _plain(name, value) for name, value in measured.items()}


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {count}" for key, count in value.items())
    if isinstance(value, list | tuple):
        return ("; " if name == "contradicting" else " ").join(map(str, value))
    return first_line(value) if isinstance(value, str) else value
