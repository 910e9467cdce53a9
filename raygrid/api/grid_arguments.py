"""What the verbs on grids take: specs in every form, listeners, options; checked before work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from raygrid.core.errors import SpecError, unknown
from raygrid.core.options import Options, hints
from raygrid.core.registry import require
from raygrid.core.spec import TrialSpec
from raygrid.engine.events import Listener
from raygrid.engine.grid import Grid, Skip
from raygrid.trials.trial import Trial

Specs = Grid | TrialSpec | str | Trial | Iterable[Grid | TrialSpec | str | Trial]


def listed(specs: Any, skips: list[Skip]) -> list[TrialSpec | str]:
    """All trials of grids and specs, in their order; skips gets what grids leave out by budgets.

    Raises SpecError for what is neither, and for a list or an iterator that holds nothing.
    """
    if isinstance(specs, Grid):
        skips += specs.unmatched()
        return list(specs.specs())
    if isinstance(specs, TrialSpec | str):
        return [specs]
    if isinstance(specs, Trial):
        return [specs.spec]
    kind = "a Grid, a spec string, a TrialSpec, a Trial of a plan, or several"
    if not isinstance(specs, Iterable) or isinstance(specs, Mapping):
        raise SpecError(f"specs is {specs!r:.60}, allowed is {kind}")
    found = [spec for each in specs for spec in listed(each, skips)]
    require(bool(found), f"specs is {specs!r:.60} and holds no spec, allowed is {kind}")
    return found


def one_by_one(specs: Specs) -> bool:
    """Whether specs were written down one by one, so that none of them may be skipped.

    Those that come out of an iterator, as of `Grid.specs`, were not.
    """
    one = TrialSpec | str | Trial
    return isinstance(specs, one) or (
        isinstance(specs, Sequence) and all(isinstance(s, one) for s in specs)
    )


def checked_listeners(given: Any) -> list[Listener]:
    """The listeners that somebody gave; raises SpecError for anything else."""
    found = list(given) if isinstance(given, Iterable) else [given]
    several = isinstance(given, Iterable) and not isinstance(given, str)
    fit = several and all(isinstance(each, Listener) for each in found)
    require(fit, f"listeners is {given!r:.60}, allowed is a list of raygrid.Listener")
    return found


def run_options(out: str | Path, data: str | Path, changes: dict[str, Any]) -> Options:
    """Run options from words; raises SpecError for one that there is none of."""
    known = hints().keys() - {"out", "data"}
    for name in changes:
        if name not in known:
            raise SpecError(unknown("run option", name, known))
    given = {"quiet": True, "tracking": "off", **changes}
    return Options(**{**given, "out": out, "data": data})
