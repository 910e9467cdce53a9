"""Short names for the rows and columns of a panel: what tells them apart, and nothing else."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from raygrid.core.budget import NORMS
from raygrid.core.errors import SpecError
from raygrid.core.literals import Scalar, format_scalar
from raygrid.core.spec import Part, parse_chain, split_outside

ATTACK_PLACE = 1  # the place of the attack in a spec
TEST_LEAK = "test"
"""The value of a parameter by which a method is given the test set: no label is without it."""


def short(labels: Sequence[str]) -> dict[str, str]:
    """Labels to short ones, distinct whenever the labels are.

    Methods of the same name keep just the parameters in which they differ: `em(step=1)` and
    `em(budget=16/255, step=2)` become `em(step=1)` and `em(step=2) 16/255`, one of them alone
    becomes `em`. What is given the test set always says so (`TEST_LEAK`). A length has three digits
    (`l2 1.30`) where these tell all labels apart. Labels that are neither methods nor budgets stay
    as they are.
    """
    chains = {label: parts for label in labels if (parts := _chain(label)) is not None}
    groups: dict[tuple[str, ...], list[str]] = {}
    for label, parts in chains.items():
        groups.setdefault(tuple(part.name for part in parts), []).append(label)
    made = {label: budget_text(label) if _is_budget(label) else label for label in labels}
    for members in groups.values():
        made |= _told(members, chains, exact=False)
        if len({made[label] for label in members}) < len(set(members)):
            made |= _told(members, chains, exact=True)
    return made if len(set(made.values())) == len(made) else {label: label for label in labels}


def budget_text(value: Scalar, exact: bool = False) -> str:
    """A budget as a person reads it: `16/255`, `2x`, `l2 1.30` for `l2:1.3041323727577427`.

    exact: whether a length keeps all its digits.
    """
    text = value if isinstance(value, str) else format_scalar(value)
    norm, _, size = text.rpartition(":")
    if not exact and len(size.partition(".")[2]) > 2:
        size = f"{float(size):#.3g}".removesuffix(".")
    return size if norm in ("", "linf") else f"{norm} {size}"


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
    names = [_attacks(c) if n == ATTACK_PLACE else short(c) for n, c in enumerate(columns)]
    told = [n == ATTACK_PLACE or len(set(column)) > 1 for n, column in enumerate(columns)]
    return {
        spec: ", ".join(name[a] for a, name, kept in zip(axes, names, told, strict=True) if kept)
        for spec, axes in split.items()
    }


def _attacks(column: Sequence[str]) -> dict[str, str]:
    """Attacks to short names, each with the ratio that stands behind it in a spec: `em@0.4`."""
    parts = {text: (*split_outside(text, "@"), "") for text in column}
    names = short([attack for attack, *_ in parts.values()])
    made = {t: "@".join(filter(None, (names[p[0]], p[1]))) for t, p in parts.items()}
    return made if len(set(made.values())) == len(made) else {text: text for text in made}


def _is_budget(label: str) -> bool:
    norm, _, size = label.partition(":")
    return norm in NORMS and size.replace(".", "", 1).isdecimal()


def _chain(label: str) -> tuple[Part, ...] | None:
    try:
        return parse_chain(label)
    except SpecError:
        return None


def _told(
    members: Sequence[str], chains: Mapping[str, tuple[Part, ...]], exact: bool
) -> dict[str, str]:
    """Labels of chains of the same names to short ones."""
    columns = zip(*(chains[label] for label in members), strict=True)
    said = zip(*(_column(parts, exact) for parts in columns), strict=True)
    return {label: "+".join(parts) for label, parts in zip(members, said, strict=True)}


def _column(parts: Sequence[Part], exact: bool) -> list[str]:
    """Parts of one name, each with the parameters whose values differ, or are a leak."""
    telling = {key for part in parts for key, _ in part.params if _varies(key, parts)}
    return [_said(part, telling, exact) for part in parts]


def _varies(key: str, parts: Sequence[Part]) -> bool:
    values = {dict(part.params).get(key) for part in parts}
    return len(values) > 1 or TEST_LEAK in values


def _said(part: Part, keys: Container[str], exact: bool) -> str:
    """The budget stands behind the brackets."""
    kept = {key: value for key, value in part.params if key in keys}
    budget = kept.pop("budget", None)
    params = ", ".join(f"{key}={format_scalar(value)}" for key, value in kept.items())
    name = f"{part.name}({params})" if params else part.name
    return name if budget is None else f"{name} {budget_text(budget, exact)}"
