"""The worst case for the attacker: the learner that keeps the highest accuracy."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping

import numpy as np

from raygrid import published
from raygrid.published import SIX
from raygrid.seeds import derive
from raygrid.spec import Part, TrialSpec
from raygrid.tables.cells import Cell, with_published, with_values
from raygrid.tables.layout import Panel

RESAMPLES = 2000


def worst_panel(panel: Panel) -> Panel:
    """The panel with a last column `worst`: per seed the largest of the six, then the mean."""
    cells = dict(panel.cells)
    for row in panel.rows:
        here = {c: panel.cells[row, c] for c in panel.columns if (row, c) in panel.cells}
        cell = worst_cell(here)
        if cell is not None:
            cells[row, "worst"] = dataclasses.replace(cell, of=panel.cells[next(iter(cells))].of)
    return dataclasses.replace(panel, columns=(*panel.columns, "worst"), cells=cells)


def worst_cell(cells: Mapping[str, Cell]) -> Cell | None:
    """Worst case over the learners of one attack; None if none of the six was run.

    `worst` needs a seed in which all six learners have a value. Without one the cell is
    `worst_partial`, a lower bound, from the seeds in which all present learners have one (if
    there are none such, from whatever there is), with the list of the missing ones.
    """
    six = {name: cells[name] for name in SIX if name in cells}
    if not six:
        return None
    present = [name for name in SIX if name in six and six[name].values]
    missing = [name for name in SIX if name not in present]
    full = _common(six, SIX) if not missing else []
    used = full or _common(six, present) or sorted({s for c in six.values() for s in c.values})
    picks = {seed: _pick(six, seed) for seed in used}
    names = Counter(name for name, _ in picks.values())
    lacking = missing or ([] if full else _gaps(six, used))
    base = next(iter(six.values()))
    cell = Cell(
        axes={**base.axes, "learner": "worst"},
        metric="worst" if full else "worst_partial",
        seeds=tuple(sorted({seed for c in six.values() for seed in c.seeds})),
        why="; ".join(f"{name}: {_why(cells.get(name))}" for name in lacking) or None,
        facts={
            "worst_learner": max(names, key=lambda n: (names[n], -SIX.index(n))) if names else None,
            "worst_learners": dict(names),
            "present": present,
            "missing": lacking,
            "max_of_means": _max_of_means(six, used),
        },
    )
    cell = with_values(cell, {seed: value for seed, (_, value) in picks.items()})
    low, high = _interval(six, present, used)
    cell = dataclasses.replace(
        cell,
        final_acc=cell.value if base.metric == "final_acc" else None,
        peak_acc=cell.value if base.metric == "peak_acc" else None,
        low=low,
        high=high,
        interval="" if low is None else "bootstrap",
    )
    return with_published(cell, _published(base)) if full else cell


def _common(cells: Mapping[str, Cell], names: tuple[str, ...] | list[str]) -> list[int]:
    sets = [set(cells[name].values) for name in names]
    return sorted(set.intersection(*sets)) if sets else []


def _pick(cells: Mapping[str, Cell], seed: int) -> tuple[str, float]:
    """The learner with the largest accuracy of a seed; of equals the first of the six."""
    known = [(name, cell.values[seed]) for name, cell in cells.items() if seed in cell.values]
    return max(known, key=lambda item: item[1])


def _gaps(cells: Mapping[str, Cell], seeds: list[int]) -> list[str]:
    return [name for name, cell in cells.items() if not set(seeds) <= set(cell.values)]


def _why(cell: Cell | None) -> str:
    """What became of a learner that has no value."""
    if cell is None:
        return "not run"
    states = {"failed": cell.failed, "diverged": cell.diverged, "skipped": cell.skipped}
    states["stopped early"] = cell.stopped
    return next((state for state, count in states.items() if count), "incomplete")


def _max_of_means(cells: Mapping[str, Cell], seeds: list[int]) -> float | None:
    """The other estimator: average each learner over the seeds first."""
    shared = [[c.values[s] for s in seeds if s in c.values] for c in cells.values()]
    means = [float(np.mean(values)) for values in shared if values]
    return max(means) if means else None


def _interval(
    cells: Mapping[str, Cell], names: list[str], seeds: list[int]
) -> tuple[float | None, float | None]:
    """95 % percentile bootstrap of the mean worst case, seeds drawn anew within each learner."""
    if len(seeds) < 2 or any(set(seeds) - set(cells[name].values) for name in names):
        return None, None
    values = np.array([[cells[name].values[seed] for seed in seeds] for name in names])
    rng = np.random.default_rng(derive("bootstrap", *values.ravel().tolist()))
    draws = rng.integers(len(seeds), size=(RESAMPLES, len(names), len(seeds)))
    picked = np.take_along_axis(values[None], draws, axis=2)
    low, high = np.quantile(picked.max(axis=1).mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def _published(base: Cell) -> published.Finding | None:
    axes = base.axes
    ratio = "" if axes["attack"] == "clean" else f"@{axes['poison_ratio']}"
    text = "/".join(
        (
            axes["dataset"],
            f"{axes['attack']}{ratio}",
            axes["defense"],
            axes["architecture"],
            axes["learner"],
            axes["protocol"],
            "0",
        )
    )
    spec = TrialSpec.parse(text).replace(learner=Part("worst"))
    return published.find(spec, base.metric)
