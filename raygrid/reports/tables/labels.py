"""Short names for the rows and columns of a panel: what tells them apart, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from raygrid.core.errors import SpecError
from raygrid.core.spec import Part, format_scalar, parse_chain, split_outside

ATTACK = 1  # the place of the attack in a spec


def short(labels: Sequence[str]) -> dict[str, str]:
    """Labels to short ones, distinct whenever the labels are.

    Methods of the same name keep just the parameters in which they differ: `em(step=1)` and
    `em(budget=16/255, step=2)` become `em(step=1)` and `em(budget=16/255, step=2)`, one of them
    alone becomes `em`. Labels that are not methods stay as they are.
    """
    chains = {label: parts for label in labels if (parts := _chain(label)) is not None}
    groups: dict[tuple[str, ...], list[str]] = {}
    for label, parts in chains.items():
        groups.setdefault(tuple(part.name for part in parts), []).append(label)
    made = {label: label for label in labels}
    for members in groups.values():
        columns = zip(*(chains[label] for label in members), strict=True)
        said = zip(*map(_column, columns), strict=True)
        made |= {label: "+".join(parts) for label, parts in zip(members, said, strict=True)}
    return made


def telling(specs: Sequence[str]) -> dict[str, str]:
    """Specs to the axes in which they differ, each by its short name: `lsp, jpeg`.

    Of trials or of poisons, all of one kind. What they share is left out but for the attack, so
    that one alone is named by it; names of another form stay as they are.
    """
    split = {spec: tuple(split_outside(spec, "/")) for spec in specs}
    lengths = {len(axes) for axes in split.values()}
    if len(lengths) != 1 or lengths == {1}:
        return {spec: spec for spec in specs}
    columns = list(zip(*split.values(), strict=True))
    names = [short(column) for column in columns]
    told = [n == ATTACK or len(set(column)) > 1 for n, column in enumerate(columns)]
    return {
        spec: ", ".join(name[a] for a, name, kept in zip(axes, names, told, strict=True) if kept)
        for spec, axes in split.items()
    }


def _chain(label: str) -> tuple[Part, ...] | None:
    try:
        return parse_chain(label)
    except SpecError:
        return None


def _column(parts: Sequence[Part]) -> list[str]:
    """Parts of one name, each with the parameters whose values are not the same in all."""
    telling = {key for part in parts for key, _ in part.params if _varies(key, parts)}
    return [_said(part, telling) for part in parts]


def _varies(key: str, parts: Sequence[Part]) -> bool:
    return len({dict(part.params).get(key) for part in parts}) > 1


def _said(part: Part, keys: Iterable[str]) -> str:
    params = [f"{key}={format_scalar(value)}" for key, value in part.params if key in keys]
    return f"{part.name}({', '.join(params)})" if params else part.name
