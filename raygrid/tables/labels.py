"""Short names for the rows and columns of a panel: what tells them apart, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from raygrid.errors import SpecError
from raygrid.spec import Part, format_scalar, parse_chain


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
