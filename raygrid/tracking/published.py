"""The published numbers of the trials of a grid, as they stand beside the measured ones."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from raygrid.core.errors import SpecError
from raygrid.core.spec import TrialSpec
from raygrid.literature.printed import Apart, Printed
from raygrid.trials.result import beside_data, data_facts


def published_of(specs: Iterable[str]) -> dict[str, Printed]:
    """Specs to what papers printed for them; those without a number are not in it.

    Importing the lookup brings torch along, so that a process that does without asks no papers.
    """
    from raygrid.literature import lookup

    known: dict[TrialSpec, Printed | None] = {}
    found: dict[str, Printed] = {}
    for text in specs:
        try:
            cell = TrialSpec.parse(text).replace(seed=0)  # no paper's number is of one seed
            if cell not in known:
                best = lookup.find(cell)
                known[cell] = best.printed() if best else None
        except SpecError:  # of a method that is not installed here
            continue
        if (number := known[cell]) is not None:
            found[text] = number
    return found


def beside(printed: Printed | None, marks: Collection[str]) -> str:
    """What is said of a number beside a result with these marks; empty where there is none."""
    return beside_data(printed, data_facts(marks)).said() if printed else ""


def printed_again(line: Mapping[str, Any]) -> Printed:
    """A number from its fields as JSON has them."""
    apart = Apart(**{**line["apart"], "methods": tuple(line["apart"]["methods"])})
    lists = {name: tuple(line[name]) for name in ("notes", "contradicting")}
    return Printed(**{**line, **lists, "apart": apart})
