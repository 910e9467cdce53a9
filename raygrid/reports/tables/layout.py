"""Tables: panels of cells that may be compared with each other, and nothing else beside them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from raygrid.core.errors import SpecError
from raygrid.core.labels import short
from raygrid.core.registry import cached
from raygrid.core.spec import Part
from raygrid.core.text import file_name_part
from raygrid.datasets import DATASETS
from raygrid.literature.names import SIX_LEARNERS
from raygrid.literature.printed import Apart
from raygrid.reports.tables.cells import Cell
from raygrid.reports.tables.trial_lines import SCREENING, tier
from raygrid.trials import contest, privileges

FIRST_NAMES = ("clean", "none", "standard", *SIX_LEARNERS)
MEASURE_NAMES = {
    "final_acc": "test accuracy after the last epoch",
    "peak_acc": "highest test accuracy over the epochs",
    "target_success": "success on the target",
    "detection_acc": "detection of poisoned images",
}
ACCURACIES = ("final_acc", "peak_acc")
"""Measures that a victim without any knowledge gets right by chance."""
SUCCESS_MEASURES = ("target_success",)
"""Measures of which an attack wants much and a defense little."""
NORM_MEASURES = ("base_l2", "l2", "linf", "linf_max")
"""Of the perturbations that a D-VAE found, and of the poison that it found them in."""
QUESTION_MEASURES = {
    "pgd_whitebox_acc": "accuracy on test images attacked through the victim itself",
    "pgd_blackbox_acc": "accuracy on test images attacked through the victim of another seed",
    "attack_transfer_rate": "share of poisoned images that a clean victim gets wrong",
    "clean_train_acc": "accuracy on a training set",
    "poisoned_train_acc": "accuracy on a training set",
    "psnr": "PSNR of purified against stored training images",
    **dict.fromkeys(NORM_MEASURES, "size of perturbations"),
    "minutes_dvae_training": "time to fit the purifier",
    "minutes_inference": "time to put the training set through it",
    "minutes_classifier_training": "time to train the victim",
    "minutes": "time",
}
"""What finished trials are asked for, beside the measures of their rows."""
UNITS = {
    **dict.fromkeys(("psnr", "psnr_pooled"), "dB"),
    **dict.fromkeys(NORM_MEASURES, "units of the pixel range [0, 1]"),
    **{name: "minutes" for name in QUESTION_MEASURES if name.startswith("minutes")},
}
"""Of measures that are no share."""
SELECTIONS = {
    "test": "the test set (an oracle)",
    "clean_val": "clean validation images",
    "poison_val": "held-out poisoned images",
}
"""What defenses select on, by `Defense.selection`."""


@dataclass(frozen=True)
class Panel:
    """A rectangle of cells of one dataset and one protocol.

    where: the axes that all cells share. rows, columns: labels in order; cells by (row, column).
    down, across: what rows and columns are. contest: whether the best of a row and the strongest
    of a column are worth marking. numeric: columns are numbers, so that it draws as curves.
    intervals: whether cells say their 95 % interval.
    """

    where: Mapping[str, Any]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: Mapping[tuple[str, str], Cell]
    down: str
    across: str
    metric: str
    digits: int = 2
    contest: bool = False
    numeric: tuple[float, ...] | None = None
    intervals: bool = False

    @property
    def title(self) -> str:
        """Dataset, protocol and the other shared axes in one line.

        Data that only have the name of an official dataset are not called by it alone.
        """
        where = {**self.where, **({"dataset": self.data} if "dataset" in self.where else {})}
        return ", ".join(_say(axis, value) for axis, value in where.items() if value != "")

    @property
    def data(self) -> str:
        """What the data of its cells are called; see `data_name`."""
        others = [str(cell.facts.get("other_data") or "") for cell in self.cells.values()]
        return data_name(str(self.where["dataset"]), others)

    @property
    def screening(self) -> bool:
        """Whether its protocol is so short that its numbers only hint at a paper's."""
        protocol = self.where.get("protocol")
        return bool(protocol) and tier(Part.parse(str(protocol))) == SCREENING

    @property
    def slug(self) -> str:
        """The shared axes as part of a file name."""
        joined = "-".join(str(value) for value in self.where.values() if value != "")
        return file_name_part(joined)

    @cached_property
    def short(self) -> dict[str, str]:
        """Labels to what is printed for them: methods with what tells them apart in the panel."""
        return {**short(self.rows), **short(self.columns)}

    @cached_property
    def apart(self) -> Apart:
        """What sets all published numbers of the panel apart, if it is the same; said once."""
        found = [cell.printed.apart for cell in self.cells.values() if cell.printed]
        return found[0] if len(found) > 1 and len(set(found)) == 1 else Apart()

    @property
    def chance(self) -> float | None:
        """The accuracy of guessing among the classes; None for other measures, or if unknown."""
        return chance_of(str(self.where["dataset"])) if self.metric in ACCURACIES else None

    @cached_property
    def privileged(self) -> dict[str, str]:
        """What rows and columns know more than others may: they are in no contest."""
        if not self.contest:
            return {}
        known = {row: privileges.of_attack(row) for row in self.rows}
        known |= {column: privileges.of_defense(column) for column in self.columns}
        return {label: said for label, said in known.items() if said}

    @property
    def from_clean(self) -> bool:
        """Whether its numbers begin at 0 with the clean set, which is the 0 of every attack."""
        return self.numeric is not None and self.numeric[0] == 0

    @property
    def against_peak(self) -> bool:
        """Whether it holds final accuracies beside peaks, which are drawn as ends of a line."""
        return "final_acc" in self.columns

    def best(self, row: str) -> set[str]:
        """Defenses that help most against a row, and those within one std of it.

        Plain training is none, and a defense that stands beside it alone is the best.
        """
        columns = [c for c in self.columns if c not in self.privileged and self._attacks(row)]
        known = self._known((c, self.cells.get((row, c))) for c in columns)
        defenses = [(c, cell) for c, cell in known if contest.is_defense(c)]
        return self._leaders(defenses, self._helps) if len(known) > 1 else set()

    def strongest(self, column: str) -> set[str]:
        """Rows (attacks) that do most under a column, and those within one std of it."""
        rows = [r for r in self.rows if self._attacks(r) and r not in self.privileged]
        known = self._known((r, self.cells.get((r, column))) for r in rows)
        return self._leaders(known, -self._helps) if len(known) > 1 else set()

    @property
    def _helps(self) -> float:
        """The sign of what a defense wants: accuracies high, an attack's success low."""
        return -1.0 if self.metric in SUCCESS_MEASURES else 1.0

    def _attacks(self, row: str) -> bool:
        """Whether a row is an attack and no control."""
        return row.split(" ")[0] not in contest.CONTROLS

    def _known(self, line: Iterable[tuple[str, Cell | None]]) -> list[tuple[str, Cell]]:
        """Those of a line that have a value; none where there is no contest."""
        found = [(label, c) for label, c in line if c is not None and c.value is not None]
        return found if self.contest else []

    def _leaders(self, line: list[tuple[str, Cell]], sign: float) -> set[str]:
        if not line:
            return set()
        _, top = max(line, key=lambda item: sign * (item[1].value or 0.0))
        edge = sign * (top.value or 0.0) - (top.std or 0.0) - 1e-12
        return {label for label, c in line if sign * (c.value or 0.0) >= edge}


def data_name(dataset: str, others: Sequence[str], unit: str = "cells") -> str:
    """A dataset, with what sets the data at hand apart from the official ones, if anything.

    others: what cells (or what `unit` says) have in its place, each its own, "" for the official
    data. Where both are there, how many have other data.
    """
    named = sorted({other for other in others if other})
    if len(named) == 1 and all(others):
        return named[0]
    count = sum(map(bool, others))
    said = f" (in {count} of {len(others)} {unit} {'; '.join(named)})"
    return dataset + said * bool(named)


@cached
def chance_of(dataset: str) -> float | None:
    """The accuracy of guessing: one over the classes; None for a folder of somebody's own."""
    try:
        made = DATASETS.make(Part.parse(dataset))
    except SpecError:  # it is not installed here
        return None
    return 1 / made.nominal.classes if made.official_sizes else None


def _say(axis: str, value: Any) -> str:
    if axis == "protocol":
        screening = "screening, " * (tier(Part.parse(str(value))) == SCREENING)
        return f"{screening}protocol {value}"
    if axis == "poison_ratio":
        return f"{100 * value:g} % poisoned"
    if axis == "norm":
        return f"{value} budget"
    if axis == "selection":
        return f"selections on {SELECTIONS.get(value, value)}"
    return str(value)


@dataclass(frozen=True)
class Table:
    """Panels of one kind. `cells` has one flat object a cell, fractions, for JSON and CSV.

    needs: the trials without which there is no panel.
    """

    kind: str
    caption: str
    panels: tuple[Panel, ...]
    needs: str = "finished trials"

    def with_intervals(self) -> Table:
        """The same, its text with the 95 % interval in every cell; JSON and CSV have it anyway."""
        return replace(self, panels=tuple(replace(p, intervals=True) for p in self.panels))

    @property
    def cells(self) -> list[dict[str, Any]]:
        return [{"kind": self.kind, **cell.row()} for p in self.panels for cell in p.cells.values()]


def order(label: str) -> tuple[Any, ...]:
    """Sorts labels: the controls first, then by name, numbers by value (resnet18, resnet101)."""
    head = label.split(" ")[0]
    rank = FIRST_NAMES.index(head) if head in FIRST_NAMES else len(FIRST_NAMES)
    pieces = re.split(r"(\d+(?:\.\d+)?)", label)
    return rank, [(0, float(p), "") if p[:1].isdigit() else (1, 0.0, p) for p in pieces if p]
