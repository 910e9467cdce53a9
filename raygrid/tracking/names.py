"""What a trial is called for people: what varies in its grid, as short as tells trials apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

from raygrid.core.errors import SpecError
from raygrid.core.labels import short
from raygrid.core.spec import TrialSpec

NAME_JOINT = " · "


def names_of(specs: Iterable[str]) -> dict[str, str]:
    """The specs of a grid to names such as `em 16/255 · grayscale · small_cnn · s0`.

    The attack always stands in a name, another axis if it has several values in the grid. A spec
    that this version cannot read is its own name.
    """
    names = {spec: spec for spec in specs}
    parsed = {}
    for spec in names:
        with suppress(SpecError):
            parsed[spec] = TrialSpec.parse(spec)
    columns = [
        _said(column, always=axis == 0)
        for axis, column in enumerate(zip(*map(_axes, parsed.values()), strict=True))
    ]
    for spec, words in zip(parsed, zip(*columns, strict=True), strict=True):
        names[spec] = NAME_JOINT.join(filter(None, words))
    return names


def _axes(spec: TrialSpec) -> tuple[str, ...]:
    """The coordinates in the order of a name. Clean data has no ratio to tell."""
    clean = spec.attack.name == "clean"
    ratio = "" if clean else f"{100 * spec.poison_ratio:g} %"
    parts = (spec.architecture, spec.learner, spec.dataset, spec.protocol)
    return (str(spec.attack), ratio, spec.chain, *map(str, parts), f"s{spec.seed}")


def _said(column: Sequence[str], always: bool) -> list[str]:
    """An axis of all trials by its short names; empty where it tells nothing."""
    names = short(list(dict.fromkeys(column)))
    told = always or len(set(column) - {""}) > 1
    return [names[value] if told else "" for value in column]
