"""The kinds of tables: which cells stand side by side."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from raygrid.core.errors import SpecError, unknown
from raygrid.core.spec import Part, parse_chain
from raygrid.core.text import share_text
from raygrid.defenses.jpeg import Jpeg
from raygrid.learners import LEARNERS
from raygrid.reports.tables import success
from raygrid.reports.tables.cells import Cell, cells_of, with_values
from raygrid.reports.tables.layout import ACCURACIES, NAMES, Panel, Table, order
from raygrid.reports.tables.rectangle import curve, rectangle, with_facts
from raygrid.reports.tables.trial_lines import DETECTION, Line
from raygrid.reports.tables.worst_learner import worst_panel
from raygrid.trials.contest import PLAIN_DEFENSES

Cells = Iterable[Cell]
BUDGET = ("method", "budget", "norm", "size")


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
    takes: tuple[str, ...] = tuple(NAMES)


class CellSource:
    """The cells of trials by metric, each made once however many tables need them."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self.lines = list(lines)
        self._cells: dict[str, list[Cell]] = {}

    def cells(self, metric: str) -> list[Cell]:
        if metric not in self._cells:
            made = cells_of(self.lines, metric).values()
            self._cells[metric] = _with_budget(self.lines, made)
        return self._cells[metric]


def table(kind: str, trials: Iterable[Line] | CellSource, metric: str = "final_acc") -> Table:
    """A table of one kind from trials (`reports.tables.trial_lines.trial_lines`).

    It has one panel for each set of trials that may be compared: never two datasets, protocols or
    selections in one. Raises SpecError for an unknown kind or metric, and for one that the kind
    does not take. No panels: nothing to compare.
    """
    if kind not in KINDS:
        raise SpecError(unknown("kind of table", kind, KINDS))
    if metric not in NAMES:
        raise SpecError(unknown("metric", metric, NAMES))
    how = KINDS[kind]
    if metric not in how.takes:
        takes = ", ".join(how.takes)
        raise SpecError(f"a table {kind!r} is made of one of {takes}, not of {metric!r}")
    source = trials if isinstance(trials, CellSource) else CellSource(trials)
    cells = [cell for name in how.metrics or (metric,) for cell in source.cells(name)]
    groups = (part for where, group in _groups(cells, how) for part in _selections(where, group))
    built = (how.build(where, group) for where, group in groups)
    return Table(kind, how.caption, tuple(p for p in built if p is not None), how.needs)


def all_tables(trials: Iterable[Line] | CellSource) -> list[Table]:
    """Every table that the trials suffice for, in the order of KINDS."""
    source = trials if isinstance(trials, CellSource) else CellSource(trials)
    return [found for kind in KINDS if (found := table(kind, source)).panels]


def _with_budget(lines: Iterable[Line], cells: Cells) -> list[Cell]:
    """Cells that know the parts of their attack: method, budget, norm, size."""
    known: dict[str, dict[str, Any]] = {}
    for line in lines:
        known.setdefault(line["attack"], {name: line[name] for name in BUDGET})
    return [with_facts(c, **known[c.axes["attack"]]) for c in cells]


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


def _defense(where: Mapping[str, Any], cells: list[Cell]) -> Panel:
    placed = [(c.axes["attack"], c.axes["defense"], c) for c in cells]
    return rectangle(where, placed, "attack", "defense", contest=True)


def _is_pretrained(learner: str) -> bool:
    """Whether a learner starts from a pre-trained extractor, as far as it is installed here."""
    name = Part.parse(learner).name
    return name in LEARNERS and LEARNERS[name].pretrained


def _beside_fresh(cell: Cell) -> Mapping[str, Any]:
    """Pre-trained victims stand beside the fresh ones of their protocol, in their own columns."""
    return {"learner": "supervised"} if _is_pretrained(cell.axes["learner"]) else {}


def _victim(cell: Cell) -> str:
    learner = cell.axes["learner"]
    suffix = f", pre-trained ({learner})" if _is_pretrained(learner) else ""
    return f"{cell.axes['architecture']}{suffix}"


def _transfer(where: Mapping[str, Any], cells: list[Cell]) -> Panel | None:
    clean = {_victim(c): c.value for c in cells if c.axes["attack"] == "clean"}
    placed = []
    for cell in cells:
        control = clean.get(_victim(cell))
        if control and cell.value is not None and cell.axes["attack"] != "clean":
            drop = (control - cell.value) / control
            cell = with_facts(cell, drop=drop)
        placed.append((cell.axes["attack"], _victim(cell), cell))
    panel = rectangle(where, placed, "attack", "victim")
    return panel if len(panel.columns) > 1 else None


def _worst(where: Mapping[str, Any], cells: list[Cell]) -> Panel | None:
    placed = [(c.axes["attack"], c.axes["learner"], c) for c in cells]
    panel = rectangle(where, placed, "attack", "learner")
    return worst_panel(panel) if len(panel.columns) > 1 else None


def _ratio(where: Mapping[str, Any], cells: list[Cell]) -> Panel | None:
    shares = sorted({c.axes["poison_ratio"] for c in cells})
    placed = [(c.axes["attack"], share_text(c.axes["poison_ratio"]), c) for c in cells]
    numbers = {share_text(share): share for share in shares}
    return curve(where, placed, numbers, "poison ratio")


def _budget(where: Mapping[str, Any], cells: list[Cell]) -> Panel | None:
    cells = [c for c in cells if c.axes["attack"] == "clean" or c.facts["norm"]]
    sizes = {c.facts["budget"] or "0": float(c.facts["size"] or 0.0) for c in cells}
    placed = [(c.facts["method"], c.facts["budget"] or "0", c) for c in cells]
    return curve(where, placed, sizes, "budget")


def _jpeg_quality(where: Mapping[str, Any], cells: list[Cell]) -> Panel | None:
    found = [(quality, cell) for cell in cells if (quality := _quality(cell)) is not None]
    placed = [(cell.axes["attack"], str(quality), cell) for quality, cell in found]
    return curve(where, placed, {str(q): float(q) for q, _ in found}, "JPEG quality")


def _quality(cell: Cell) -> int | None:
    """Of the JPEG compression that is the cell's only defense, and differs in nothing else."""
    chain = parse_chain(cell.axes["defense"])
    if len(chain) > 1 or chain[0].name != "jpeg":
        return None
    params = dict(chain[0].params)
    quality = int(params.pop("quality", Jpeg.quality))
    return None if params else quality


def _success(where: Mapping[str, Any], cells: list[Cell]) -> Panel | None:
    found = success.cells_of_success(cells)
    return rectangle(where, found, "attack", "victim") if found else None


PEAK = ("final_acc", "peak_acc", "gap", "peak_epoch", "epochs_to_half")


def _peak(where: Mapping[str, Any], cells: list[Cell]) -> Panel:
    plain = where["defense"] in PLAIN_DEFENSES
    kept = [c for c in cells if plain or c.metric != "epochs_to_half"]
    placed = [(c.axes["attack"], c.metric, c) for c in kept]
    by = {(row, column): cell for row, column, cell in placed}
    for attack in dict.fromkeys(row for row, _ in by):
        gap = _gap(by[attack, "peak_acc"], by[attack, "final_acc"])
        placed.append((attack, "gap", gap))
    panel = rectangle(where, placed, "attack", "measure")
    columns = tuple(name for name in PEAK if name in panel.columns)
    return dataclasses.replace(panel, columns=columns, metric="peak_acc")


def _gap(peak: Cell, final: Cell) -> Cell:
    """Peak minus final accuracy of the same seeds."""
    both = {s: v - final.values[s] for s, v in peak.values.items() if s in final.values}
    gap = Cell(
        axes=peak.axes,
        metric="gap",
        final_acc=final.final_acc,
        peak_acc=peak.peak_acc,
        seeds=peak.seeds,
        failed=peak.failed,
        diverged=peak.diverged,
        stopped=final.stopped,
        facts=peak.facts,
    )
    return with_values(gap, both)


def _detection(where: Mapping[str, Any], cells: list[Cell]) -> Panel | None:
    if all(cell.value is None for cell in cells):
        return None
    placed = [
        (f"{c.axes['attack']} @ {share_text(c.axes['poison_ratio'])}", c.metric, c) for c in cells
    ]
    panel = rectangle(where, placed, "attack", "measure")
    return dataclasses.replace(panel, columns=DETECTION, metric=DETECTION[0])


_VICTIM = ("dataset", "protocol", "architecture", "learner")
KINDS: dict[str, Kind] = {
    "defense": Kind((*_VICTIM, "poison_ratio"), "Attacks against defenses.", _defense),
    "transfer": Kind(
        ("dataset", "protocol", "learner", "poison_ratio", "defense"),
        "Attacks across victims; the drop is relative to the victim's clean accuracy.",
        _transfer,
        needs="trials that differ in the architecture, or in pre-training, alone",
        takes=ACCURACIES,
        shown_as=_beside_fresh,
    ),
    "worst-learner": Kind(
        ("dataset", "protocol", "architecture", "poison_ratio", "defense"),
        "Attacks against learners. Worst: the largest of the six learners' columns, which a "
        "paper's number is compared with. Mean of max, from two seeds on: the largest accuracy of "
        "every seed, averaged afterwards.",
        _worst,
        needs="trials that differ in the learner alone",
        takes=ACCURACIES,
    ),
    "ratio": Kind(
        (*_VICTIM, "defense"),
        "Accuracy over the poisoned share.",
        _ratio,
        needs="an attack at two poison ratios",
    ),
    "budget": Kind(
        (*_VICTIM, "poison_ratio", "defense", "norm"),
        "Accuracy over the budget.",
        _budget,
        needs="an attack at two budgets",
    ),
    "jpeg-quality": Kind(
        (*_VICTIM, "poison_ratio"),
        "Accuracy over the quality of JPEG compression.",
        _jpeg_quality,
        needs="an attack under jpeg at two qualities",
    ),
    "success": Kind(
        ("dataset", "protocol", "learner", "defense"),
        "Success of targeted attacks: the share of set-ups whose target gets the wanted label. The "
        "control is a clean victim of the same set-ups, asked with the same trigger; p: exact "
        "McNemar.",
        _success,
        metrics=success.METRICS,
        needs="trials of attacks on a target",
    ),
    "peak": Kind(
        (*_VICTIM, "poison_ratio", "defense"),
        "Highest accuracy over the epochs (chosen on the test set) against the last one; epochs "
        "until the training loss is below 0.5, none where smoothed labels keep it above.",
        _peak,
        metrics=("final_acc", "peak_acc", "peak_epoch", "epochs_to_half"),
    ),
    "detection": Kind(
        (*_VICTIM, "defense"),
        "Poisoned images that a detector finds among the training images, at each poisoned share. "
        "False positives: the share of clean images that are flagged.",
        _detection,
        metrics=DETECTION,
        needs="trials with a defense that looks for poisoned images",
    ),
}
