"""How the cells of one panel become the panel, for each kind of table."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from raygrid.core.spec import Part, parse_chain
from raygrid.core.text import share_text
from raygrid.defenses.jpeg import Jpeg
from raygrid.learners import LEARNERS
from raygrid.reports.tables.cells import Cell, with_facts, with_values
from raygrid.reports.tables.layout import Panel
from raygrid.reports.tables.rectangle import curve, rectangle
from raygrid.reports.tables.success import cells_of_success
from raygrid.reports.tables.trial_lines import DETECTION_FIELDS
from raygrid.reports.tables.worst_learner import worst_panel
from raygrid.trials.contest import PLAIN_DEFENSES

PEAK_MEASURES = ("final_acc", "peak_acc", "gap", "peak_epoch", "epochs_to_half")


def defense_panel(where: Mapping[str, Any], cells: list[Cell]) -> Panel:
    placed = [(c.axes["attack"], c.axes["defense"], c) for c in cells]
    return rectangle(where, placed, "attack", "defense", contest=True)


def _is_pretrained(learner: str) -> bool:
    """Whether a learner starts from a pre-trained extractor, as far as it is installed here."""
    name = Part.parse(learner).name
    return name in LEARNERS and LEARNERS[name].pretrained


def beside_fresh(cell: Cell) -> Mapping[str, Any]:
    """Pre-trained victims stand beside the fresh ones of their protocol, in their own columns."""
    return {"learner": "supervised"} if _is_pretrained(cell.axes["learner"]) else {}


def _victim(cell: Cell) -> str:
    learner = cell.axes["learner"]
    suffix = f", pre-trained ({learner})" if _is_pretrained(learner) else ""
    return f"{cell.axes['architecture']}{suffix}"


def transfer_panel(where: Mapping[str, Any], cells: list[Cell]) -> Panel | None:
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


def learners_panel(where: Mapping[str, Any], cells: list[Cell]) -> Panel | None:
    placed = [(c.axes["attack"], c.axes["learner"], c) for c in cells]
    panel = rectangle(where, placed, "attack", "learner")
    return worst_panel(panel) if len(panel.columns) > 1 else None


def ratio_panel(where: Mapping[str, Any], cells: list[Cell]) -> Panel | None:
    shares = sorted({c.axes["poison_ratio"] for c in cells})
    placed = [(c.axes["attack"], share_text(c.axes["poison_ratio"]), c) for c in cells]
    numbers = {share_text(share): share for share in shares}
    return curve(where, placed, numbers, "poison ratio")


def budget_panel(where: Mapping[str, Any], cells: list[Cell]) -> Panel | None:
    cells = [c for c in cells if c.axes["attack"] == "clean" or c.facts["norm"]]
    sizes = {c.facts["budget"] or "0": float(c.facts["size"] or 0.0) for c in cells}
    placed = [(c.facts["method"], c.facts["budget"] or "0", c) for c in cells]
    return curve(where, placed, sizes, "budget")


def quality_panel(where: Mapping[str, Any], cells: list[Cell]) -> Panel | None:
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


def success_panel(where: Mapping[str, Any], cells: list[Cell]) -> Panel | None:
    found = cells_of_success(cells)
    return rectangle(where, found, "attack", "victim") if found else None


def peak_panel(where: Mapping[str, Any], cells: list[Cell]) -> Panel:
    plain = where["defense"] in PLAIN_DEFENSES
    kept = [c for c in cells if plain or c.metric != "epochs_to_half"]
    placed = [(c.axes["attack"], c.metric, c) for c in kept]
    by = {(row, column): cell for row, column, cell in placed}
    for attack in dict.fromkeys(row for row, _ in by):
        gap = _gap(by[attack, "peak_acc"], by[attack, "final_acc"])
        placed.append((attack, "gap", gap))
    panel = rectangle(where, placed, "attack", "measure")
    columns = tuple(name for name in PEAK_MEASURES if name in panel.columns)
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


def detection_panel(where: Mapping[str, Any], cells: list[Cell]) -> Panel | None:
    if all(cell.value is None for cell in cells):
        return None
    placed = [
        (f"{c.axes['attack']} @ {share_text(c.axes['poison_ratio'])}", c.metric, c) for c in cells
    ]
    panel = rectangle(where, placed, "attack", "measure")
    return dataclasses.replace(panel, columns=DETECTION_FIELDS, metric=DETECTION_FIELDS[0])
