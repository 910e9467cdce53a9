"""What a grid found, in a few lines: of the panels with the most numbers, what a person asks first.

Every line names its numbers in percent and over how many cells it speaks; it is left out where
the grid has nothing to compare.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from raygrid.core.text import percent
from raygrid.reports.tables.kinds import CellSource, table
from raygrid.reports.tables.layout import Panel
from raygrid.reports.tables.notes import head
from raygrid.trials import contest
from raygrid.trials.contest import PLAIN_DEFENSES, SUM_COLUMNS

CLEAN_PART = "withheld"
"""The control of a poison ratio: training on the untouched images alone."""
MOST_POINTS = 3
"""Numbers of one attack that fit in a line of 80 columns."""

PanelAccuracies = Mapping[tuple[str, str], float]
"""Accuracies by row and column."""


@dataclass(frozen=True)
class Reach:
    """A row or column of a panel. name: as printed; at: the label where its value is reached."""

    name: str
    value: float
    at: str
    of: int


def headlines(source: CellSource) -> list[str]:
    """Lines on the strongest attack, the best defenses, transfer, learners, ratios and budgets."""
    said = {
        "defense": _defense,
        "transfer": _transfer,
        "worst-learner": _worst,
        "ratio": _ratio,
        "budget": _budget,
    }
    panels = {kind: table(kind, source).panels for kind in said}
    for kind in ("ratio", "budget"):  # a panel of these has one defense, which has to be fair
        panels[kind] = _plainest(panels[kind])
    chosen = {kind: fullest(some) for kind, some in panels.items()}
    return [line for kind, panel in chosen.items() if panel for line in said[kind](panel)]


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
        said += [f"clean {percent(value)}"] if (value := known.get(("clean", plain))) else []
        aside = f" ({', '.join(said)})" if said else ""
        name = head(panel, strongest)
        yield f"strongest attack: {name}, {percent(hit[strongest])} under {plain}{aside}"
    fair = _fair(panel, known)
    defenses = {
        column: line for column in panel.columns if (line := _complete(panel, fair, column))
    }
    if not defenses:
        return
    mean = {column: sum(line.values()) / len(line) for column, line in defenses.items()}
    best = max(mean, key=lambda column: mean[column])
    count = len(defenses[best])
    name = head(panel, best)
    yield f"best defense on average: {name}, {percent(mean[best])} over {_some(count)}"
    worst = {column: min(line, key=lambda row: line[row]) for column, line in defenses.items()}
    safest = max(worst, key=lambda column: defenses[column][worst[column]])
    lowest = percent(defenses[safest][worst[safest]])
    names = head(panel, safest), head(panel, worst[safest])
    yield f"best in the worst case: {names[0]}, {lowest} under {names[1]}"
    met = {(row, column): line[row] for column, line in defenses.items() for row in line}
    yield from _everywhere(panel, met, "defense")


def _fair(panel: Panel, known: PanelAccuracies) -> PanelAccuracies:
    """What is known of defenses proper."""
    return {
        (row, column): value for (row, column), value in known.items() if contest.is_defense(column)
    }


def _complete(panel: Panel, fair: PanelAccuracies, column: str) -> dict[str, float]:
    """The accuracies of a defense under all attacks that any met; empty if one lacks."""
    rows = [row for row in _attacks(panel) if any((row, c) in fair for c in panel.columns)]
    line = {row: fair[row, column] for row in rows if (row, column) in fair}
    return line if len(line) == len(rows) else {}


def _transfer(panel: Panel) -> Iterator[str]:
    yield from _everywhere(panel, _values(panel), "victim")


def _worst(panel: Panel) -> Iterator[str]:
    yield from _everywhere(panel, _values(panel), "learner")


def _everywhere(panel: Panel, known: PanelAccuracies, axis: str) -> Iterator[str]:
    """The attack whose highest accuracy over the columns is the lowest."""
    columns = [column for column in panel.columns if column not in SUM_COLUMNS]
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
            f"strongest attack over {best.of} {axis}s: {best.name}; the best of them ({best.at}) "
            f"reaches {percent(best.value)}"
        )


def _ratio(panel: Panel) -> Iterator[str]:
    """The strongest attack on a part of the images, beside training on the other part alone.

    Of the ratios: one with that control, with the most attacks, the largest.
    """
    known, attacks = _values(panel), _attacks(panel)
    met = {
        column: hit
        for column, share in zip(panel.columns, panel.numeric or (), strict=True)
        if 0 < share < 1 and (hit := [row for row in attacks if (row, column) in known])
    }
    if not met:
        return
    ranked = {c: ((CLEAN_PART, c) in known, len(hit), i) for i, (c, hit) in enumerate(met.items())}
    column = max(ranked, key=lambda name: ranked[name])
    strongest = min(met[column], key=lambda row: known[row, column])
    count = len(met[column])
    said = f"{head(panel, strongest)} {percent(known[strongest, column])}"
    said += f", lowest of {count}" if count > 1 else ""
    if (CLEAN_PART, column) in known:
        said += f"; clean part alone {percent(known[CLEAN_PART, column])}"
    yield f"at {column[:-1]} % poisoned{_place(panel)}: {said}"


def _budget(panel: Panel) -> Iterator[str]:
    """The accuracies of the attack with the most budgets, of equals the strongest at its last.

    Of more budgets than fit in a line the smallest and the largest.
    """
    known = _values(panel)
    lines = {
        row: [(column, known[row, column]) for column in panel.columns if (row, column) in known]
        for row in _attacks(panel)
    }
    longest = max((len(line) for line in lines.values()), default=0)
    if longest < 2:
        return
    row = min((r for r in lines if len(lines[r]) == longest), key=lambda r: lines[r][-1][1])
    points = [f"{percent(value)} at {head(panel, column)}" for column, value in lines[row]]
    few = longest <= MOST_POINTS
    said = ", ".join(points) if few else f"{points[0]} to {points[-1]} ({longest} budgets)"
    yield f"{head(panel, row)} by budget{_place(panel)}: {said}"


def _plainest(panels: tuple[Panel, ...]) -> tuple[Panel, ...]:
    """The panels of plain training; where there are none, of defenses proper."""
    plain = tuple(panel for panel in panels if panel.where["defense"] in PLAIN_DEFENSES)
    return plain or tuple(p for p in panels if contest.is_defense(p.where["defense"]))


def _place(panel: Panel) -> str:
    """The shared axes of a panel that are other than expected: a defense, a part of the images."""
    defense, ratio = panel.where["defense"], panel.where.get("poison_ratio", 1.0)
    said = f" under {defense}" * (defense not in PLAIN_DEFENSES)
    return said + (f" at {100 * ratio:g} % poisoned" if ratio != 1 else "")


def _values(panel: Panel) -> PanelAccuracies:
    return {spot: c.value for spot, c in panel.cells.items() if c.value is not None}


def _attacks(panel: Panel) -> list[str]:
    """Attacks proper."""
    return [row for row in panel.rows if contest.is_attack(row)]


def _some(count: int) -> str:
    return f"{count} attacks" if count > 1 else "one attack"
