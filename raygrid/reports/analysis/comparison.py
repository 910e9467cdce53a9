"""Which of two is better: paired by seed on every attack, then over all attacks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

from raygrid.core.errors import DataError, SpecError
from raygrid.core.spec import parse_chain, split_outside
from raygrid.defenses.chain import Chain
from raygrid.reports.statistics import caution, confidence, holm, signed_rank, spread
from raygrid.reports.tables.cells import Cell, cells_of
from raygrid.reports.tables.trial_lines import AXES, trial_lines
from raygrid.trials.contest import CONTROLS

if TYPE_CHECKING:
    from raygrid.reports.analysis.records import EvaluationRow

SHARED_AXES = ("dataset", "attack", "poison_ratio")
"""What both sides of a pair share: a difference of anything else would be that of two tasks."""
SideAxes = dict[str, Mapping[str, Any]]
"""By the name of a side the axes that its cells have."""


def compare(
    rows: Iterable[Mapping[str, Any]], sides: Sequence[str], metric: str = "final_acc"
) -> list[EvaluationRow]:
    """Every pair of sides: first the attacks one by one, then all attacks of a setting together.

    sides: defenses, in every setting that two of them share, or canonical specs of trials, each
    with all of its seeds. Of an attack: mean of first minus second over the n seeds that both
    have, of all that either has, and Student's 95 % interval. Over attacks, at least two, without
    `clean`: two-sided p of Wilcoxon's signed-rank test of these means, and p_holm, corrected
    for all such tests of the answer. Raises SpecError, or DataError for sides without results.
    """
    wanted = _wanted(sides)
    cells = list(cells_of(trial_lines(rows), metric).values())
    shared = [axis for axis in AXES if axis not in _apart(list(wanted.values()))]
    placed = {name: _placed(name, cells, axes, shared) for name, axes in wanted.items()}
    paired = [
        _pair(dict(zip(shared, place, strict=True)), (one, other), (first, placed[other][place]))
        for one, other in combinations(wanted, 2)
        for place, first in placed[one].items()
        if place in placed[other]
    ]
    if not paired:
        raise DataError(f"{' and '.join(wanted)} have no setting in common")
    return [*paired, *_over_attacks(paired)]


def _wanted(sides: Sequence[str]) -> SideAxes:
    """Raises SpecError for sides that cannot be compared."""
    trials = [is_trial(side) for side in sides]
    if any(trials) and not all(trials):
        raise SpecError(f"compare takes defenses or trials, not both: {', '.join(sides)}")
    chains = [] if any(trials) else [str(Chain.make(parse_chain(side))) for side in sides]
    named: SideAxes = _cells_named(sides) if any(trials) else {c: {"defense": c} for c in chains}
    if len(named) < 2:
        said = ", ".join(sides)
        raise SpecError(f"compare needs two that differ in more than the seed, not {said}")
    return named


def is_trial(side: str) -> bool:
    """Whether it is the spec of a trial, not a defense."""
    return len(list(split_outside(side, "/"))) > 1


def _cells_named(specs: Sequence[str]) -> SideAxes:
    """The axes of trials by what sets them apart."""
    lines = trial_lines([{"spec": spec} for spec in specs])
    axes = [{axis: line[axis] for axis in AXES} for line in lines]
    apart = _apart(axes)
    for axis in SHARED_AXES:
        values = ", ".join(str(one[axis]) for one in axes)
        if axis in apart:
            raise SpecError(f"compare pairs trials of one {axis}, not of {values}")
    return {"/".join(str(one[axis]) for axis in apart): one for one in axes}


def _apart(sides: Sequence[Mapping[str, Any]]) -> list[str]:
    """The axes in which sides differ."""
    return [axis for axis in AXES if len({side.get(axis) for side in sides}) > 1]


def _placed(
    name: str, cells: list[Cell], axes: Mapping[str, Any], shared: list[str]
) -> dict[tuple[Any, ...], Cell]:
    """The cells of a side by what it shares with others; raises DataError if there are none."""
    own = [cell for cell in cells if all(cell.axes[a] == value for a, value in axes.items())]
    if not own:
        raise DataError(f"there is no result of {name}")
    return {tuple(cell.axes[axis] for axis in shared): cell for cell in own}


def _pair(place: EvaluationRow, names: tuple[str, str], cells: tuple[Cell, Cell]) -> EvaluationRow:
    first, second = cells
    seeds = [seed for seed in first.values if seed in second.values]
    apart = [first.values[seed] - second.values[seed] for seed in seeds]
    low, high, _ = confidence(apart)
    row = {
        **place,
        "first": names[0],
        "second": names[1],
        "difference_acc": sum(apart) / len(apart) if apart else None,
        "std_acc": spread(apart),
        "low_acc": low,
        "high_acc": high,
        "n": len(apart),
        "of": len({*first.seeds, *second.seeds}),
        "seeds": " ".join(map(str, seeds)),
    }
    return {**row, **caution(len(apart))}


def _over_attacks(paired: list[EvaluationRow]) -> list[EvaluationRow]:
    """One row a pair and setting with at least two attacks that have a difference."""
    groups: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    axes = [axis for axis in AXES if axis in paired[0] and axis != "attack"]
    axes += ["first", "second"]
    for row in paired:
        attacks = row.get("attack") not in CONTROLS
        if row["n"] and attacks:
            groups[tuple(row[axis] for axis in axes)].append(row["difference_acc"])
    tested = {key: apart for key, apart in groups.items() if len(apart) > 1}
    ps = [signed_rank(apart) for apart in tested.values()]
    return [
        {
            **dict(zip(axes, key, strict=True)),
            "attack": f"all {len(apart)}",
            "difference_acc": sum(apart) / len(apart),
            "p": p,
            "p_holm": corrected,
        }
        for (key, apart), p, corrected in zip(tested.items(), ps, holm(ps), strict=True)
    ]
