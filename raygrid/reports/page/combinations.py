"""The main table of the page: a line a combination of axes, the trials of all folders behind it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from raygrid.core.labels import budget_text, short
from raygrid.reports.page.folders import RunFolder
from raygrid.reports.tables.cell_text import marks, measured_text, printed_text
from raygrid.reports.tables.cells import Cell, CellKey
from raygrid.reports.tables.layout import order
from raygrid.reports.tables.trial_lines import AXES, ResultRow
from raygrid.storage.results import Json
from raygrid.trials.result import own_marks

PAGE_MEASURES = {
    "final_acc": "final",
    "peak_acc": "peak",
    "knn_peak": "kNN peak",
    "target_success": "success on the target",
}
"""The measures of the main table, as far as some folder has them, and what they are called."""
COMBINATION_AXES = (
    *("dataset", "protocol", "learner", "architecture"),
    *("attack", "budget", "poison_ratio", "defense"),
)
"""The axes of a line; lines are sorted by them in this order."""
CURVE_POINTS = 60  # points of a curve; more than a screen tells apart
ERROR_LETTERS = 2000  # letters of an error
CUT_NOTE = "\n... (the whole text is in results.jsonl)"


@dataclass
class GridLine:
    """One line. values: of COMBINATION_AXES as text; size: norm and value of the budget.

    cells: by folder and measure; trials: numbers into the list of all trials.
    """

    key: CellKey
    values: list[str]
    size: tuple[str, float]
    cells: dict[tuple[int, str], Cell] = field(default_factory=dict)
    trials: list[int] = field(default_factory=list)


class Combinations:
    """All lines of a page, in the order in which their controls and names sort.

    measures: those that some line has. trials: of all folders, by number.
    """

    def __init__(self, folders: Sequence[RunFolder]) -> None:
        self.folders = len(folders)
        self.trials: list[Json] = []
        found: dict[CellKey, GridLine] = {}
        for number_, folder in enumerate(folders):
            _take_cells(found, folder, number_)
            for line, row in zip(folder.source.lines, folder.rows, strict=True):
                found[_key(line)].trials.append(len(self.trials))
                self.trials.append(trial_facts(row, number_))
        self.lines = sorted(found.values(), key=lambda line: [order(v) for v in line.values])
        self._place = {line.key: number_ for number_, line in enumerate(self.lines)}
        there = {measure for line in self.lines for _, measure in line.cells}
        self.measures = [name for name in PAGE_MEASURES if name in there]

    def place_of(self, cell: Cell) -> int:
        """The line of a cell, -1 for one that sums up others."""
        return self._place.get(_key(cell.axes), -1)

    def axes(self) -> list[Json]:
        """Every axis with its values in order, and their short names."""
        return [_axis(name, column, self.lines) for column, name in enumerate(COMBINATION_AXES)]

    def rows(self) -> list[list[Any]]:
        """The lines: places of the values of axes, published number, measures by folder, trials."""
        places = [
            {value: place for place, value in enumerate(axis["values"])} for axis in self.axes()
        ]
        return [
            [
                [where[value] for where, value in zip(places, line.values, strict=True)],
                published_entry(line),
                [
                    [_measured(line.cells.get((folder, name))) for name in self.measures]
                    for folder in range(self.folders)
                ],
                line.trials,
            ]
            for line in self.lines
        ]


def _take_cells(found: dict[CellKey, GridLine], folder: RunFolder, number_: int) -> None:
    """Give every combination of a folder its cells, those without a number as well."""
    for measure in PAGE_MEASURES:
        for cell in folder.source.cells(measure):
            key = _key(cell.axes)
            if key not in found:
                budget = str(cell.facts.get("budget") or "")
                size = str(cell.facts.get("norm") or ""), float(cell.facts.get("size") or 0.0)
                found[key] = GridLine(key, _values(cell.axes, budget), size)
            if cell.value is not None or measure == "final_acc":
                found[key].cells[number_, measure] = cell


def _key(axes: Mapping[str, Any]) -> CellKey:
    return tuple(axes[name] for name in AXES)


def _values(axes: Mapping[str, Any], budget: str) -> list[str]:
    """The values of COMBINATION_AXES as text."""
    said = {**axes, "budget": budget, "poison_ratio": f"{100 * axes['poison_ratio']:g} %"}
    return [str(said[name]) for name in COMBINATION_AXES]


def _axis(name: str, column: int, lines: Iterable[GridLine]) -> Json:
    """An axis: its values sorted, numbers by value, and what is printed for each."""
    found = {line.values[column]: line for line in lines}
    if name == "budget":
        values = sorted(found, key=lambda value: found[value].size)
        names = {value: budget_text(value) if value else "none" for value in values}
    elif name == "poison_ratio":
        values = sorted(found, key=lambda value: float(value.split()[0]))
        names = {value: value for value in values}
    else:
        values = sorted(found, key=order)
        names = short(values)
    return {"name": name, "values": values, "names": [names[value] for value in values]}


def _measured(cell: Cell | None) -> list[Any] | None:
    """Text, number in percent for sorting, and how many seeds of a cell."""
    if cell is None:
        return None
    return [measured_text(cell, 1), _percent(cell.value, 4), cell.n]


def published_entry(line: GridLine) -> list[Any] | None:
    """Text, number in percent, source and marks; a paper's number is the same in all folders."""
    finals = (cell for (_, name), cell in line.cells.items() if name == "final_acc")
    printed = next((cell.printed for cell in finals if cell.printed), None)
    if printed is None:
        return None
    text = printed_text(printed, "final_acc", 1)
    return [text, _percent(printed.value, 4), printed.said(), marks(printed)]


def trial_facts(row: ResultRow, folder: int) -> Json:
    """A trial as it stands behind a line: numbers in percent, its curve thinned."""
    error = str(row.get("error") or "")
    facts: Json = {
        "folder": folder,
        "spec": row["spec"],
        "status": row["status"],
        "final": _percent(row.get("final_acc")),
        "peak": _percent(row.get("peak_acc")),
        "knn": _percent(row.get("knn_peak")),
        "seconds": round(float(row.get("seconds") or 0.0), 1),
        "device": row.get("device"),
        "commit": row.get("commit"),
        "why": "; ".join(own_marks(row.get("marks") or ())),
        "error": error[:ERROR_LETTERS] + (CUT_NOTE if len(error) > ERROR_LETTERS else ""),
        "winner": row.get("winner"),
        "poison": (row.get("artifacts") or {}).get("poison"),
        "curve": _curve(row.get("history") or ()),
    }
    return {name: value for name, value in facts.items() if value not in ("", None)}


def _percent(value: Any, digits: int = 2) -> float | None:
    known = value is not None and math.isfinite(value)
    return round(100 * float(value), digits) if known else None


def _curve(history: Sequence[Mapping[str, float]]) -> Json | None:
    """Epochs with test accuracy in percent and training loss; the last one is always there.

    step: every how many epochs there is a point.
    """
    step = max(1, math.ceil(len(history) / CURVE_POINTS))
    kept = history[::-1][::step][::-1]
    if not kept:
        return None
    losses = [epoch.get("train_loss", math.nan) for epoch in kept]
    return {
        "epochs": [int(epoch["epoch"]) for epoch in kept],
        "acc": [_percent(epoch.get("test_acc")) for epoch in kept],
        "loss": [float(f"{loss:.3g}") if math.isfinite(loss) else None for loss in losses],
        "step": step,
    }
