"""Lines of trials and of their epochs as pandas frames."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Real
from typing import Any

import pandas as pd

from raygrid.core.errors import DataError
from raygrid.reports.tables.trial_lines import (
    AXES,
    LINE_FIELDS,
    NUMBER_FIELDS,
    ResultRow,
    TrialLine,
    trial_line,
    trial_lines,
)
from raygrid.storage.results import ACCURACY_FIELDS

EPOCH_LINE_FIELDS = (*AXES, "seed", "status", "other_data")
"""What an epoch's line has of its trial's."""
_NAMING = [name for name in AXES if name != "poison_ratio"]
"""The axes whose values are texts."""


def frame(rows: Iterable[ResultRow]) -> pd.DataFrame:
    """The lines of `trial_lines`, one a row; a number that is not there is NaN."""
    table = pd.DataFrame(trial_lines(rows), columns=list(LINE_FIELDS))
    table[list(NUMBER_FIELDS)] = table[list(NUMBER_FIELDS)].apply(pd.to_numeric)
    return table


def lines_of(table: pd.DataFrame) -> list[TrialLine]:
    """The lines that a frame was made of, also where rows were chosen from it.

    Raises DataError for a frame of other columns, for columns that hold other kinds of values, and
    for accuracies that are no fractions.
    """
    if lacking := [name for name in (*AXES, "seed", "status") if name not in table]:
        raise DataError(
            f"the frame lacks the columns {', '.join(lacking)}; allowed are the frame of a run "
            "(Run.df) and rows chosen from it"
        )
    for name in (*_NAMING, "status"):
        _refuse_odd(name, table[name], str, "texts")
    for name in ("poison_ratio", "seed", *NUMBER_FIELDS):
        if name in table:
            _refuse_odd(name, table[name].dropna(), Real, "numbers")
    for name in ACCURACY_FIELDS:
        if name in table and bool((odd := pd.to_numeric(table[name]).abs() > 1).any()):
            raise DataError(
                f"{name} of the frame is {table[name][odd].iloc[0]:g}, allowed are fractions from "
                "0 to 1"
            )
    records = table.astype(object).where(table.notna(), None).to_dict("records")
    return [{str(name): value for name, value in record.items()} for record in records]


def _refuse_odd(name: str, values: pd.Series[Any], kind: type, words: str) -> None:
    """Raise DataError that names a column and its first value of another kind."""
    for value in values:
        if not isinstance(value, kind) or isinstance(value, bool):
            raise DataError(f"{name} of the frame is {value!r:.60}, allowed are {words}")


def curves(rows: Iterable[ResultRow]) -> pd.DataFrame:
    """One line an epoch and trial: the axes, seed, epoch (from 1) and what the epoch measured."""
    lines = []
    for row in rows:
        if row.get("derived_from") or not row.get("history"):
            continue
        head = trial_line(row)
        axes = {name: head[name] for name in EPOCH_LINE_FIELDS}
        for number, epoch in enumerate(row["history"], 1):
            lines.append({**axes, **epoch, "epoch": number})
    return pd.DataFrame(lines, columns=None if lines else [*EPOCH_LINE_FIELDS, "epoch"])
