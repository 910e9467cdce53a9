"""Literals of a spec as values of the fields that they are given for: numbers, choices, budgets."""

from __future__ import annotations

import math
import types
from collections.abc import Sequence
from typing import Any, Literal, get_args, get_origin

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
    if get_origin(wanted) in (types.UnionType,) or type(None) in get_args(wanted):
        if raw == "none":
            return None
        inner = [t for t in get_args(wanted) if t is not type(None)]
        try:
            return coerce(raw, inner[0], default, norms)
        except SpecError as error:
            near = " (did you mean 'none'?)" if str(raw).lower() == "none" else ""
            raise SpecError(f"{error}{near}") from None
    return _coerce_plain(raw, wanted)


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
