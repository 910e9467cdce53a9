"""The kinds of tables: which cells stand side by side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from raygrid.core.errors import SpecError, unknown
from raygrid.reports.tables import builders, success
from raygrid.reports.tables.cells import Cell, cells_of, with_facts
from raygrid.reports.tables.layout import ACCURACIES, MEASURE_NAMES, Panel, Table, order
from raygrid.reports.tables.trial_lines import DETECTION_FIELDS, VICTIM_AXES, TrialLine

BUDGET_FIELDS = ("method", "budget", "norm", "size")


def _as_it_is(cell: Cell) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True)
class Kind:
    """share: the axes of a panel. build: cells of one panel to the panel, None if not enough.

    needs: what is enough, in words. shown_as: values of axes by which a cell is sorted into panels,
    where these are other than its own. takes: the measures it can be made of.
    """

    share: tuple[str, ...]
    caption: str
    build: Callable[[Mapping[str, Any], list[Cell]], Panel | None]
    metrics: tuple[str, ...] = ()
    needs: str = "finished trials"
    shown_as: Callable[[Cell], Mapping[str, Any]] = _as_it_is
    takes: tuple[str, ...] = tuple(MEASURE_NAMES)


class CellSource:
    """The cells of trials by metric, each made once however many tables need them."""

    def __init__(self, lines: Iterable[TrialLine]) -> None:
        self.lines = list(lines)
        self._cells: dict[str, list[Cell]] = {}

    def cells(self, metric: str) -> list[Cell]:
        if metric not in self._cells:
            made = cells_of(self.lines, metric).values()
            self._cells[metric] = _with_budget(self.lines, made)
        return self._cells[metric]


def table(kind: str, trials: Iterable[TrialLine] | CellSource, metric: str = "final_acc") -> Table:
    """A table of one kind from trials (`reports.tables.trial_lines.trial_lines`).

    It has one panel for each set of trials that may be compared: never two datasets, protocols or
    selections in one. Raises SpecError for an unknown kind or metric, and for one that the kind
    does not take. No panels: nothing to compare.
    """
    if kind not in [*TABLE_KINDS]:  # a list compares even what has no hash
        raise SpecError(unknown("kind of table", kind, TABLE_KINDS))
    if metric not in [*MEASURE_NAMES]:
        raise SpecError(unknown("metric", metric, MEASURE_NAMES))
    how = TABLE_KINDS[kind]
    if metric not in how.takes:
        takes = ", ".join(how.takes)
        raise SpecError(f"a table {kind!r} is made of one of {takes}, not of {metric!r}")
    source = trials if isinstance(trials, CellSource) else CellSource(trials)
    cells = [cell for name in how.metrics or (metric,) for cell in source.cells(name)]
    groups = (part for where, group in _groups(cells, how) for part in _selections(where, group))
    built = (how.build(where, group) for where, group in groups)
    return Table(kind, how.caption, tuple(p for p in built if p is not None), how.needs)


def all_tables(trials: Iterable[TrialLine] | CellSource) -> list[Table]:
    """Every table that the trials suffice for, in the order of TABLE_KINDS."""
    source = trials if isinstance(trials, CellSource) else CellSource(trials)
    return [found for kind in TABLE_KINDS if (found := table(kind, source)).panels]


def _with_budget(lines: Iterable[TrialLine], cells: Iterable[Cell]) -> list[Cell]:
    """Cells that know the parts of their attack: method, budget, norm, size.

    By dataset, too: the own budget of some attacks grows with the side of its images.
    """
    known: dict[tuple[str, str], dict[str, Any]] = {}
    for line in lines:
        place = line["dataset"], line["attack"]
        known.setdefault(place, {name: line[name] for name in BUDGET_FIELDS})
    return [with_facts(c, **known[c.axes["dataset"], c.axes["attack"]]) for c in cells]


def _groups(cells: list[Cell], how: Kind) -> list[tuple[dict[str, Any], list[Cell]]]:
    """Cells by the axes they share. `clean` joins every ratio and norm that occurs beside it."""
    groups: dict[tuple[Any, ...], list[Cell]] = defaultdict(list)
    controls: dict[tuple[Any, ...], list[Cell]] = defaultdict(list)
    share = how.share
    fixed = [axis for axis in share if axis not in ("poison_ratio", "norm")]
    for cell in cells:
        values = {**cell.axes, **cell.facts, **how.shown_as(cell)}
        if cell.axes["attack"] == "clean":
            controls[tuple(values[axis] for axis in fixed)].append(cell)
        else:
            groups[tuple(values[axis] for axis in share)].append(cell)
    taken = set()
    for key, members in groups.items():
        where = dict(zip(share, key, strict=True))
        near = tuple(where[axis] for axis in fixed)
        taken.add(near)
        members[:0] = controls.get(near, [])
    for near, members in controls.items():
        if near not in taken:
            where = {**dict.fromkeys(share, ""), **dict(zip(fixed, near, strict=True))}
            groups[tuple(where[axis] for axis in share)] = members
    found = [(dict(zip(share, key, strict=True)), cells) for key, cells in groups.items()]
    return sorted(found, key=lambda item: [order(str(value)) for value in item[0].values()])


def _selections(
    where: Mapping[str, Any], cells: list[Cell]
) -> Iterator[tuple[dict[str, Any], list[Cell]]]:
    """The cells by what their defenses select on; those that select nothing join every one."""
    found = sorted({c.facts["selection"] for c in cells} - {""})
    for selection in found or [""]:
        chosen = [c for c in cells if c.facts["selection"] in ("", selection)]
        yield {**where, "selection": selection}, chosen


TABLE_KINDS: dict[str, Kind] = {
    "defense": Kind(
        (*VICTIM_AXES, "poison_ratio"), "Attacks against defenses.", builders.defense_panel
    ),
    "transfer": Kind(
        ("dataset", "protocol", "learner", "poison_ratio", "defense"),
        "Attacks across victims; the drop is relative to the victim's clean accuracy.",
        builders.transfer_panel,
        needs="trials that differ in the architecture, or in pre-training, alone",
        takes=ACCURACIES,
        shown_as=builders.beside_fresh,
    ),
    "worst-learner": Kind(
        ("dataset", "protocol", "architecture", "poison_ratio", "defense"),
        "Attacks against learners. Worst: the largest of the six learners' columns, which a "
        "paper's number is compared with. Mean of max, from two seeds on: the largest accuracy of "
        "every seed, averaged afterwards.",
        builders.learners_panel,
        needs="trials that differ in the learner alone",
        takes=ACCURACIES,
    ),
    "ratio": Kind(
        (*VICTIM_AXES, "defense"),
        "Accuracy over the poisoned share.",
        builders.ratio_panel,
        needs="an attack at two poison ratios",
    ),
    "budget": Kind(
        (*VICTIM_AXES, "poison_ratio", "defense", "norm"),
        "Accuracy over the budget.",
        builders.budget_panel,
        needs="an attack at two budgets",
    ),
    "jpeg-quality": Kind(
        (*VICTIM_AXES, "poison_ratio"),
        "Accuracy over the quality of JPEG compression.",
        builders.quality_panel,
        needs="an attack under jpeg at two qualities",
    ),
    "success": Kind(
        ("dataset", "protocol", "learner", "defense"),
        "Success of targeted attacks: the share of set-ups whose target gets the wanted label. The "
        "control is a clean victim of the same set-ups, asked with the same trigger; p: exact "
        "McNemar.",
        builders.success_panel,
        metrics=success.SUCCESS_METRICS,
        needs="trials of attacks on a target",
    ),
    "peak": Kind(
        (*VICTIM_AXES, "poison_ratio", "defense"),
        "Highest accuracy over the epochs (chosen on the test set) against the last one; epochs "
        "until the training loss is below 0.5, none where smoothed labels keep it above.",
        builders.peak_panel,
        metrics=("final_acc", "peak_acc", "peak_epoch", "epochs_to_half"),
    ),
    "detection": Kind(
        (*VICTIM_AXES, "defense"),
        "Poisoned images that a detector finds among the training images, at each poisoned share. "
        "False positives: the share of clean images that are flagged.",
        builders.detection_panel,
        metrics=DETECTION_FIELDS,
        needs="trials with a defense that looks for poisoned images",
    ),
}
