"""The published numbers of the trials of a grid, as they stand beside the measured ones."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from raygrid.core.errors import SpecError
from raygrid.core.spec import TrialSpec
from raygrid.trials.result import data_facts, set_apart

if TYPE_CHECKING:
    from raygrid.literature.lookup import Finding

Published = tuple[float, str]
"""A final accuracy as a fraction, and its source: `apbench T3, T6; em_apb` (what sets it apart)."""


def published_of(specs: Iterable[str]) -> dict[str, Published]:
    """Specs to what papers printed for them; those without a number are not in it.

    Importing the lookup brings torch along, so that a process that does without asks no papers.
    """
    from raygrid.literature import lookup

    known: dict[TrialSpec, Published | None] = {}
    found: dict[str, Published] = {}
    for text in specs:
        try:
            cell = TrialSpec.parse(text).replace(seed=0)  # no paper's number is of one seed
            if cell not in known:
                best = lookup.find(cell)
                known[cell] = (best.best.value, _source(best)) if best else None
        except SpecError:  # of a method that is not installed here
            continue
        if (number := known[cell]) is not None:
            found[text] = number
    return found


def beside(published: Published | None, marks: Collection[str]) -> str:
    """The source of a number beside a result with these marks, and what sets its data apart."""
    if published is None:
        return ""
    return "; ".join(filter(None, (published[1], set_apart(data_facts(marks)))))


def _source(found: Finding) -> str:
    return found.best.cite() + (f"; {found.apart}" if found.apart else "")
