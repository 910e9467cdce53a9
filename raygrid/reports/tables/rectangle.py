"""Panels of a table: cells at rows and columns."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from raygrid.core.spec import Part
from raygrid.reports.tables.cells import Cell
from raygrid.reports.tables.layout import Panel, order
from raygrid.reports.tables.trial_lines import SCREENING, tier


def rectangle(
    where: Mapping[str, Any],
    placed: Sequence[tuple[str, str, Cell]],
    down: str,
    across: str,
    contest: bool = False,
) -> Panel:
    """A panel of cells at (row, column); `of` becomes the number of seeds seen in the panel."""
    of = len({seed for _, _, cell in placed for seed in cell.seeds})
    cells = {(r, c): dataclasses.replace(cell, of=of) for r, c, cell in placed}
    quick = tier(Part.parse(where["protocol"])) in ("quick", SCREENING)
    return Panel(
        where=where,
        rows=tuple(sorted({r for r, _, _ in placed}, key=order)),
        columns=tuple(sorted({c for _, c, _ in placed}, key=order)),
        cells=cells,
        down=down,
        across=across,
        metric=placed[0][2].metric,
        digits=1 if quick else 2,
        contest=contest,
    )


def curve(
    where: Mapping[str, Any],
    placed: list[tuple[str, str, Cell]],
    numbers: Mapping[str, float],
    across: str,
) -> Panel | None:
    """A panel with numbers across; None unless some attack has two of them."""
    steps: dict[str, set[str]] = defaultdict(set)
    for row, column, _ in placed:
        steps[row].add(column)
    if not any(len(columns) > 1 for columns in steps.values()):
        return None
    panel = rectangle(where, placed, "attack", across)
    columns = tuple(sorted(numbers, key=lambda name: numbers[name]))
    spots = tuple(numbers[name] for name in columns)
    return dataclasses.replace(panel, columns=columns, numeric=spots)
