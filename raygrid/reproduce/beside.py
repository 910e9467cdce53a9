"""The panels of a reproduced table beside what the paper's table prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from raygrid.core.spec import Part, TrialSpec
from raygrid.literature import lookup
from raygrid.literature.names import SIX_LEARNERS
from raygrid.literature.printed import Apart
from raygrid.reports.tables.cells import Cell, with_published
from raygrid.reports.tables.layout import Panel
from raygrid.reproduce.tables import PaperTable


def compared(panel: Panel, table: tuple[str, str], wanted: PaperTable) -> list[Panel]:
    """A panel beside what a table prints (paper, number): with that table's own numbers.

    Of stand-ins there is one for each dataset that has numbers.
    """
    panel = _with_numbers_of(panel, table)
    filled = [with_printed(panel, table, wanted.alone(dataset)) for dataset in wanted.datasets]
    return [each for each in filled if each != panel] or [panel]


def _with_numbers_of(panel: Panel, table: tuple[str, str]) -> Panel:
    """A panel with the number of this table wherever another has one of the same trial too."""
    cells = dict(panel.cells)
    for place, cell in panel.cells.items():
        if cell.printed is None:
            continue
        found = lookup.find(cell.spec(), _measure_of(cell), table)
        if found and found.best.stands_in(*table):
            cells[place] = with_published(cell, found)
    return replace(panel, cells=cells)


def _measure_of(cell: Cell) -> str:
    return "final_acc" if cell.metric.startswith("worst") else cell.metric


def with_printed(panel: Panel, table: tuple[str, str], printed: Mapping[str, TrialSpec]) -> Panel:
    """A panel of attacks with the printed number in every cell that has none.

    table: paper and number. printed: as in `PaperTable.alone`, for the very trials whose cells
    these are. Such a number says which dataset it is of.
    """
    paper, _ = table
    cells = dict(panel.cells)
    for place, cell in panel.cells.items():
        spec = _printed_for(cell, printed) if cell.printed is None else None
        found = None if spec is None else lookup.find(spec, _measure_of(cell), table)
        if spec and found and found.best.paper == paper:
            apart = Apart(paper, data=str(spec.dataset))
            cells[place] = with_published(cell, replace(found, apart=apart))
    return replace(panel, cells=cells)


def _printed_for(cell: Cell, printed: Mapping[str, TrialSpec]) -> TrialSpec | None:
    """The printed trial of a cell; for `worst` that of a learner, with `worst` in its place."""
    worst = cell.axes["learner"] == "worst"
    for learner in SIX_LEARNERS if worst else (cell.axes["learner"],):
        axes = {**cell.axes, "learner": learner}
        spec = printed.get(str(replace(cell, axes=axes).spec()))
        if spec is not None:
            return spec.replace(learner=Part("worst")) if worst else spec
    return None
