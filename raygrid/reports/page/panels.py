"""The tables of a page: every panel of comparable cells as a heatmap, its notes below."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from typing import Any

from raygrid.reports.page.combinations import Combinations
from raygrid.reports.page.folders import RunFolder
from raygrid.reports.tables.cell_text import EPOCH_MEASURES, measured_text, quoted
from raygrid.reports.tables.cells import Cell
from raygrid.reports.tables.layout import UNITS, Panel, Table
from raygrid.reports.tables.notes import head, notes
from raygrid.reports.tables.write import worth_drawing
from raygrid.storage.results import RESULTS_FILE, Json

PANEL_HEADINGS = {
    "defense": "Attacks against defenses",
    "transfer": "Attacks across victims",
    "worst-learner": "Attacks against learners",
    "success": "Success on the target",
    "ratio": "Accuracy over the poisoned share",
    "budget": "Accuracy over the budget",
    "jpeg-quality": "Accuracy over the quality of JPEG compression",
    "peak": "Peak against final accuracy",
    "detection": "Detection of poisoned images",
}
BEST_BIT, STRONGEST_BIT = 1, 2  # bits of a cell's mark


class Drawings:
    """Pictures of panels, at most `most` of them; `left` counts those that were not drawn.

    Pictures that a run wrote beside its rows are taken from there where they are not older.
    """

    def __init__(self, most: int) -> None:
        self.most, self.left = most, 0

    def of(self, folder: RunFolder, kind: str, panel: Panel) -> str:
        """The picture of a panel as an address that holds it; empty for one that has none."""
        heatmap = panel.numeric is None and not panel.against_peak
        if heatmap or not worth_drawing(panel):  # the page shows heatmaps as tables
            return ""
        if not self.most:
            self.left += 1
            return ""
        self.most -= 1
        return data_address(_png(folder, kind, panel))


def _png(folder: RunFolder, kind: str, panel: Panel) -> bytes:
    from raygrid.reports.tables.plots import picture

    drawn = folder.path / "tables" / f"{kind}-{panel.slug}.png"
    rows = folder.path / RESULTS_FILE
    if drawn.exists() and drawn.stat().st_mtime >= rows.stat().st_mtime:
        return drawn.read_bytes()
    file = io.BytesIO()
    picture(panel).savefig(file, format="png")
    return file.getvalue()


def data_address(png: bytes) -> str:
    """A picture inside the address that names it."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def sections(
    folders: Sequence[RunFolder], combinations: Combinations, drawings: Drawings
) -> list[Json]:
    """The kinds of tables in order; in each the panels by title, of every folder that has it."""
    found: dict[str, dict[str, list[Json]]] = {}
    captions: dict[str, str] = {}
    for number, folder in enumerate(folders):
        for made in folder.tables:
            captions[made.kind] = made.caption
            for panel in made.panels:
                shown = _panel(made, panel, combinations)
                shown |= {"folder": number, "picture": drawings.of(folder, made.kind, panel)}
                found.setdefault(made.kind, {}).setdefault(panel.title, []).append(shown)
    return [
        {
            "kind": kind,
            "heading": heading,
            "caption": captions[kind],
            "panels": [{"title": t, "folders": shown} for t, shown in found[kind].items()],
            "fullest": _fullest(list(found[kind].values())),
        }
        for kind, heading in PANEL_HEADINGS.items()
        if kind in found
    ]


def _fullest(panels: Sequence[list[Json]]) -> int:
    """The place of the panel with the most numbers, of equals the first."""
    counts = [sum(c is not None for each in shown for c in each["cells"]) for shown in panels]
    return counts.index(max(counts))


def _panel(made: Table, panel: Panel, combinations: Combinations) -> Json:
    return {
        "down": panel.down,
        "across": panel.across,
        "rows": [[label, head(panel, label)] for label in panel.rows],
        "columns": [[label, head(panel, label)] for label in panel.columns],
        "cells": list(_cells(panel, combinations)),
        "notes": notes(made, panel),
        "chance": panel.chance,
    }


def _cells(panel: Panel, combinations: Combinations) -> Iterator[list[Any] | None]:
    """Row by row: text, percent for its color, published, line of the main table, marks."""
    strongest = {column: panel.strongest(column) for column in panel.columns}
    for row in panel.rows:
        best = panel.best(row)
        for column in panel.columns:
            cell = panel.cells.get((row, column))
            if cell is None:
                yield None
                continue
            mark = BEST_BIT * (column in best) | STRONGEST_BIT * (row in strongest[column])
            text = measured_text(cell, min(panel.digits, 1))
            place = combinations.place_of(cell)
            yield [text, _heat(cell), quoted(cell, panel), place, mark]


def _heat(cell: Cell) -> float | None:
    """Percent of a share; None for what is none, such as epochs or a difference."""
    plain = cell.metric not in UNITS and cell.metric not in EPOCH_MEASURES and cell.metric != "gap"
    return round(100 * cell.value, 1) if plain and cell.value is not None else None
