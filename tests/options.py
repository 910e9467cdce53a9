"""Run options of which none is the default, however many there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from raygrid.core.flags import plain_type
from raygrid.core.options import Options, flags, hints


def all_changed() -> dict[str, Any]:
    """A value for every option, none of them its default."""
    return {name: other_value(name) for name in hints()}


def other_value(name: str) -> Any:
    """A value of an option that is allowed and not its default."""
    flag = flags().get(name)
    default = getattr(Options(), name)
    kind, _ = plain_type(hints()[name])
    if kind is bool:
        return not default
    known = get_args(kind) if get_origin(kind) is Literal else flag.allowed if flag else ()
    if known:
        chosen = next(each for each in known if each not in (default, "inline"))
        return (chosen,) if get_origin(kind) is tuple else chosen
    if name == "driver":
        return "1/3"
    if get_origin(kind) is tuple:
        return ("one", "two")
    values: dict[Any, Any] = {int: 3, float: 7.5, str: "somewhere", Path: Path("elsewhere")}
    return values[kind]
