"""What a grid found, in five lines: of the panels with the most numbers, what a person asks first.

Every line names its numbers in percent and over how many cells it speaks; it is left out where
the grid has nothing to compare.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from raygrid.core.spec import parse_chain
from raygrid.defenses import DEFENSES
from raygrid.reports.tables.kinds import CellSource, table
from raygrid.reports.tables.layout import Panel
from raygrid.reports.tables.notes import head
from raygrid.reports.tables.trial_lines import PLAIN_DEFENSES

ORACLE = "test"
"""What a defense selects on that sees the test set; it is no answer to which defense helps."""
SUMS = ("worst", "mean_of_max")
"""Columns of learners that sum up others."""


@dataclass(frozen=True)
class Reach:
    """A row or column of a panel. name: as printed; at: the label where its value is reached."""

    name: str
    value: float
    at: str
    of: int


def headlines(source: CellSource) -> list[str]:
    """Lines on the strongest attack, the best defenses, transfer and learners."""
    return [
        line
        for kind, say in (("defense", _defense), ("transfer", _transfer), ("worst-learner", _worst))
        if (panel := fullest(table(kind, source).panels)) is not None
        for line in say(panel)
    ]


def fullest(panels: tuple[Panel, ...]) -> Panel | None:
    """The panel with the most numbers, of equals the first; None without any."""
    return max(
        panels, key=lambda p: sum(c.value is not None for c in p.cells.values()), default=None
    )


def _defense(panel: Panel) -> Iterator[str]:
    known = _values(panel)
    plain = next(
        (d for d in reversed(PLAIN_DEFENSES) if any((r, d) in known for r in panel.rows)), ""
    )
    hit = {row: known[row, plain] for row in _attacks(panel) if (row, plain) in known}
    if hit:
        strongest = min(hit, key=lambda row: hit[row])
        said = [f"of {len(hit)} attacks"] if len(hit) > 1 else []
        said += [f"clean {_percent(value)}"] if (value := known.get(("clean", plain))) else []
        aside = f" ({', '.join(said)})" if said else ""
        name = head(panel, strongest)
        yield f"strongest attack: {name}, {_percent(hit[strongest])} under {plain}{aside}"
    defenses = {
        column: line
        for column in panel.columns
        if column not in PLAIN_DEFENSES and (line := _complete(panel, known, column))
    }
    if not defenses:
        return
    mean = {column: sum(line.values()) / len(line) for column, line in defenses.items()}
    best = max(mean, key=lambda column: mean[column])
    count = len(defenses[best])
    name = head(panel, best)
    yield f"best defense on average: {name}, {_percent(mean[best])} over {_some(count)}"
    worst = {column: min(line, key=lambda row: line[row]) for column, line in defenses.items()}
    safest = max(worst, key=lambda column: defenses[column][worst[column]])
    lowest = _percent(defenses[safest][worst[safest]])
    names = head(panel, safest), head(panel, worst[safest])
    yield f"best in the worst case: {names[0]}, {lowest} under {names[1]}"


def _complete(
    panel: Panel, known: Mapping[tuple[str, str], float], column: str
) -> dict[str, float]:
    """The accuracies of a defense under all attacks; empty if one lacks.

    It is empty too if the defense saw the test set or knew more than others may.
    """
    links = [part.name for part in parse_chain(column)]
    if any(name in DEFENSES and DEFENSES[name].informed for name in links):
        return {}
    cells = [panel.cells.get((row, column)) for row in _attacks(panel)]
    if any(cell is not None and cell.facts.get("selection") == ORACLE for cell in cells):
        return {}
    line = {row: known[row, column] for row in _attacks(panel) if (row, column) in known}
    return line if len(line) == len(_measured(panel, known)) else {}


def _measured(panel: Panel, known: Mapping[tuple[str, str], float]) -> set[str]:
    """The attacks that some defense has a number of."""
    return {row for row in _attacks(panel) if any((row, c) in known for c in panel.columns)}


def _transfer(panel: Panel) -> Iterator[str]:
    yield from _everywhere(panel, "best against all victims", "victim")


def _worst(panel: Panel) -> Iterator[str]:
    yield from _everywhere(panel, "best against all learners", "learner")


def _everywhere(panel: Panel, what: str, axis: str) -> Iterator[str]:
    """The attack whose highest accuracy over the columns is the lowest."""
    known = _values(panel)
    columns = [column for column in panel.columns if column not in SUMS]
    held = []
    for row in _attacks(panel):
        line = {column: known[row, column] for column in columns if (row, column) in known}
        if len(line) > 1:
            most = max(line, key=lambda column: line[column])
            held.append(Reach(head(panel, row), line[most], head(panel, most), len(line)))
    full = [one for one in held if one.of == max(other.of for other in held)]
    if full:
        best = min(full, key=lambda one: one.value)
        yield (
            f"{what}: {best.name}, at most {_percent(best.value)} ({best.at}, of {best.of} {axis}s)"
        )


def _values(panel: Panel) -> dict[tuple[str, str], float]:
    return {spot: c.value for spot, c in panel.cells.items() if c.value is not None}


def _attacks(panel: Panel) -> list[str]:
    return [row for row in panel.rows if row != "clean"]


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _some(count: int) -> str:
    return f"{count} attacks" if count > 1 else "one attack"
