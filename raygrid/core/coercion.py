"""Literals of a spec as values of the fields that they are given for: numbers, choices, budgets."""

from __future__ import annotations

import math
import types
from collections.abc import Sequence
from typing import Any, Literal, Union, get_args, get_origin

from raygrid.core.budget import NORMS, Budget
from raygrid.core.errors import SpecError, unknown
from raygrid.core.literals import Scalar


def coerce(raw: Scalar, wanted: Any, default: Any, norms: Sequence[str] = NORMS) -> Any:
    """Turn a literal into the type of a field; raise SpecError that says what is allowed.

    norms: of the budgets that the method takes.
    """
    if wanted is Budget or isinstance(default, Budget):
        if isinstance(raw, bool):
            raise SpecError(f"{raw} is not a budget")
        return Budget.parse(raw if isinstance(raw, str) else repr(raw), default, norms)
    if get_origin(wanted) is Literal:
        return _coerce_choice(raw, get_args(wanted))
    if get_origin(wanted) in (types.UnionType, Union):
        return _coerce_union(raw, get_args(wanted), default, norms)
    return _coerce_plain(raw, wanted)


def _coerce_union(raw: Scalar, kinds: tuple[Any, ...], default: Any, norms: Sequence[str]) -> Any:
    """The value as the first member that takes it, the literal's own type before all others."""
    optional = type(None) in kinds
    if optional and raw == "none":
        return None
    faults = dict[str, None]()
    for kind in sorted(kinds, key=lambda kind: kind is not type(raw)):
        if kind is type(None):
            continue
        try:
            return coerce(raw, kind, default, norms)
        except SpecError as error:
            faults[str(error)] = None
    near = " (did you mean 'none'?)" if optional and str(raw).lower() == "none" else ""
    raise SpecError(f"{' and '.join(faults)}{near}")


def _coerce_choice(raw: Scalar, choices: tuple[Any, ...]) -> Any:
    for choice in choices:
        if raw == choice and type(raw) is type(choice):
            return choice
    raise SpecError(unknown("value", str(raw), map(str, choices)))


def _coerce_plain(raw: Scalar, wanted: Any) -> Any:
    if wanted is bool and isinstance(raw, bool):
        return raw
    if wanted is int and isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    if wanted is float and not isinstance(raw, bool):
        return _to_float(raw)
    if wanted is str and isinstance(raw, str):
        return raw
    raise SpecError(f"{raw!r} is not of type {getattr(wanted, '__name__', wanted)}")


def _to_float(raw: Scalar) -> float:
    top, slash, bottom = raw.partition("/") if isinstance(raw, str) else (raw, "", "")
    try:
        value = float(top) / float(bottom) if slash else float(top)
    except (ValueError, ZeroDivisionError):
        raise SpecError(f"{raw!r} is not a number") from None
    except OverflowError:  # of a whole number with hundreds of digits
        value = math.inf
    if not math.isfinite(value):
        raise SpecError(f"{raw} is not a finite number")
    return value
