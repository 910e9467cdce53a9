"""The worst case for the attacker: the learner that keeps the highest accuracy."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

from raygrid.core.lazy import np
from raygrid.core.seeds import derive_seed
from raygrid.core.spec import Part
from raygrid.literature import lookup
from raygrid.literature.names import SIX_LEARNERS
from raygrid.reports.statistics import RESAMPLES, FloatArray
from raygrid.reports.tables.cells import Cell, with_facts, with_published, with_values
from raygrid.reports.tables.layout import Panel
from raygrid.trials.contest import SUM_COLUMNS
from raygrid.trials.result import DATA_MARKS

if TYPE_CHECKING:
    from numpy.typing import NDArray

WORST, BY_SEED = SUM_COLUMNS
SHARED_FACTS = ("selection", *DATA_MARKS)
"""Facts of a learner that say something of the worst case, too."""


def worst_panel(panel: Panel) -> Panel:
    """The panel with a column `worst`, and `mean_of_max` where a row has more than one seed."""
    cells = dict(panel.cells)
    of = max(cell.of for cell in cells.values())
    for row in panel.rows:
        six = {name: panel.cells[row, name] for name in SIX_LEARNERS if (row, name) in panel.cells}
        if six:
            seeds = by_seed_cell(six)
            worst = with_facts(worst_cell(six), mean_of_max=seeds.value)
            cells[row, WORST] = dataclasses.replace(worst, of=of)
            cells[row, BY_SEED] = dataclasses.replace(seeds, of=of)
    more = [name for name in SUM_COLUMNS if any(column == name for _, column in cells)]
    if all(cell.n < 2 for (_, column), cell in cells.items() if column == BY_SEED):
        more = more[:1]  # of one seed both are the same
        cells = {place: cell for place, cell in cells.items() if place[1] != BY_SEED}
    return dataclasses.replace(panel, columns=(*panel.columns, *more), cells=cells)


def worst_cell(six: Mapping[str, Cell]) -> Cell:
    """The largest of the columns of an attack: means over seeds first, then the maximum.

    It is what a paper's single number is compared with. `worst` needs a value of all six learners;
    without one it is `worst_partial`, a lower bound, with the list of the missing ones. Values,
    spread and n are those of the learner that attains it (of equals the first of the six).
    six: cells of one attack by learner, in the order of SIX_LEARNERS, at least one.
    """
    there = _there(six)
    missing = [name for name in SIX_LEARNERS if name not in there]
    base = next(iter(six.values()))
    name = max(there, key=lambda n: there[n].value or 0.0, default=None)
    found = base if name is None else there[name]
    fewer = [n for n, cell in there.items() if n != name and cell.n < cell.of]
    cell = dataclasses.replace(
        _bare(six, WORST, missing, [*missing, *fewer]),
        final_acc=found.final_acc,
        peak_acc=found.peak_acc,
        value=found.value,
        std=found.std,
        values=found.values,
        n=found.n,
    )
    cell = with_facts(cell, worst_learner=name, fewer_seeds=fewer)
    cell = _with_interval(cell, list(there.values()), found, _largest_mean)
    return cell if missing else with_published(cell, _published(base))


def by_seed_cell(six: Mapping[str, Cell]) -> Cell:
    """The largest value of every seed, averaged afterwards: never below `worst` of those seeds.

    From the seeds in which all learners that have a value have one.
    """
    there = _there(six)
    missing = [name for name in SIX_LEARNERS if name not in there]
    picks = _picks(there)
    names = Counter(name for name, _ in picks.values())
    cell = with_facts(_bare(six, BY_SEED, missing, missing), worst_learners=dict(names))
    cell = with_values(cell, {seed: value for seed, (_, value) in picks.items()})
    shared = [
        dataclasses.replace(each, values={seed: each.values[seed] for seed in picks})
        for each in there.values()
    ]
    winner = there[next(iter(names))] if names else cell
    return _with_interval(cell, shared, winner, _mean_of_largest)


def _there(six: Mapping[str, Cell]) -> dict[str, Cell]:
    return {name: cell for name, cell in six.items() if cell.values}


def _bare(six: Mapping[str, Cell], column: str, missing: list[str], lacking: Sequence[str]) -> Cell:
    """A cell without a value. lacking: the learners of which it says why."""
    base = next(iter(six.values()))
    return Cell(
        axes={**base.axes, "learner": column},
        metric=f"{column}_partial" if missing else column,
        seeds=tuple(sorted({seed for cell in six.values() for seed in cell.seeds})),
        why="; ".join(f"{name}: {_why(six.get(name))}" for name in lacking) or None,
        facts={
            **{k: v for cell in six.values() for k, v in cell.facts.items() if k in SHARED_FACTS},
            "missing": missing,
        },
    )


def _picks(there: Mapping[str, Cell]) -> dict[int, tuple[str, float]]:
    """By seed that all have: the learner with the largest value, of equals the first of the six."""
    shared = set.intersection(*(set(c.values) for c in there.values())) if there else set()
    ranked = {s: [(name, cell.values[s]) for name, cell in there.items()] for s in sorted(shared)}
    return {seed: max(values, key=lambda item: item[1]) for seed, values in ranked.items()}


def _why(cell: Cell | None) -> str:
    """What became of a learner that has no value, or too few."""
    if cell is None:
        return "not run"
    states = {"failed": cell.failed, "diverged": cell.diverged, "stopped early": cell.stopped}
    return next((state for state, count in states.items() if count), "incomplete")


def _largest_mean(values: list[FloatArray]) -> FloatArray:
    return np.max([v.mean(1) for v in values], axis=0)


def _mean_of_largest(values: list[FloatArray]) -> FloatArray:
    return np.max(values, axis=0).mean(1)


def _with_interval(
    cell: Cell,
    learners: list[Cell],
    winner: Cell,
    statistic: Callable[[list[FloatArray]], FloatArray],
) -> Cell:
    """95 % percentile bootstrap, seeds drawn anew within each learner.

    Where a learner has a single seed there is nothing to draw: then the winner's own interval,
    Wilson's if it has no other seed either.
    """
    values = [np.array(list(each.values.values())) for each in learners]
    if not values or min(map(len, values)) < 2:
        same = cell.value == winner.value
        low, high, interval = (
            (winner.low, winner.high, winner.interval) if same else (None, None, "")
        )
        return dataclasses.replace(cell, low=low, high=high, interval=interval)
    drawn = [v[_draws(place, len(v))] for place, v in enumerate(values)]
    low, high = map(float, np.quantile(statistic(drawn), [0.025, 0.975]))
    return dataclasses.replace(cell, low=low, high=high, interval="bootstrap")


@cache
def _draws(place: int, n: int) -> NDArray[np.int64]:
    """Seeds of a learner drawn with replacement, int64 (RESAMPLES, n); always the same."""
    rng = np.random.default_rng(derive_seed("bootstrap", place, n))
    return rng.integers(n, size=(RESAMPLES, n))


def _published(base: Cell) -> lookup.Finding | None:
    return lookup.find(base.spec().replace(learner=Part("worst")), base.metric)
