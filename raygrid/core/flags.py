"""What stands beside a field of an options class: its help text, its limits, its flag, the checks.

Nothing here knows an option by name; `raygrid.core.options` has them all.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin

from raygrid.core.errors import SpecError, unknown

T = TypeVar("T")
FlagGroup = Literal["places", "running"]

if TYPE_CHECKING:
    # What type checkers are told of fields that take more than they hold: `__set__` has what may be
    # given, `__get__` what is read. Elsewhere these names are the plain types that are held.

    class Place:
        def __get__(self, instance: Any, owner: Any) -> Path: ...
        def __set__(self, instance: Any, value: str | os.PathLike[str]) -> None: ...

    class Address:
        def __get__(self, instance: Any, owner: Any) -> str | None: ...
        def __set__(self, instance: Any, value: str | os.PathLike[str] | None) -> None: ...

    class Texts:
        def __get__(self, instance: Any, owner: Any) -> tuple[str, ...]: ...
        def __set__(self, instance: Any, value: str | tuple[str, ...] | list[str]) -> None: ...

else:
    Place, Address, Texts = Path, str | None, tuple[str, ...]


@dataclass(frozen=True)
class Flag:
    """What the command line and the checks know of an option besides its type and default.

    help: for a person, in a few words. group: the part of the help that shows it. word: the flag
    where it is not the field's name. metavar: stands for the value in the help. variable: the
    environment variable that gives the default. repeated: a flag for each value, else several
    values follow one flag. allowed: the values that there are. least: the smallest number that is
    allowed; above: the number that a value has to exceed. driver_only: why workers do not get it;
    empty where they do.
    """

    help: str
    group: FlagGroup = "running"
    word: str = ""
    metavar: str | None = None
    variable: str = ""
    repeated: bool = False
    allowed: tuple[str | int, ...] = ()
    least: float | None = None
    above: float | None = None
    driver_only: str = ""


def option(default: Any, help: str, **facts: Any) -> Any:
    """A field of `Options` with a flag; facts: those of `Flag`.

    `Options` checks defaults as it checks what is given. A type checker cannot: the default of a
    `Place` is a path.
    """
    return field(default=default, metadata={"flag": Flag(help, **facts)})


def no_flag(default: T, reason: str) -> T:
    """A field of `Options` that the commands set by themselves; the reason says why."""
    found: T = field(default=default, metadata={"reason": reason})
    return found


def plain_type(hint: Any) -> tuple[Any, bool]:
    """An option's type without None, and whether it may be None."""
    if get_origin(hint) is not UnionType:
        return hint, False
    (kind,) = (each for each in get_args(hint) if each is not NoneType)
    return kind, True


def checked_value(name: str, value: Any, hint: Any, flag: Flag | None = None) -> Any:
    """An option's value as its type has it; raises SpecError if it is not allowed."""
    kind, optional = plain_type(hint)
    if value is None and optional:
        return None
    allowed: tuple[Any, ...] = flag.allowed if flag else ()
    if get_origin(kind) is tuple:
        return tuple(_one(name, each, str, allowed) for each in _sequence(name, value))
    if get_origin(kind) is Literal:
        return _one(name, value, str, get_args(kind))
    found = _one(name, value, kind, allowed)
    if flag is not None and flag.least is not None and found < flag.least:
        raise SpecError(f"{name} is {found:g}, allowed are {_numbers(kind)} from {flag.least:g}")
    if flag is not None and flag.above is not None and found <= flag.above:
        raise SpecError(f"{name} is {found:g}, allowed are {_numbers(kind)} above {flag.above:g}")
    return found


def _one(name: str, value: Any, kind: Any, allowed: tuple[Any, ...]) -> Any:
    """A value that is no sequence, of its type and among those that are allowed."""
    words, read = _READERS[kind]
    found = read(value)
    if found is None:
        raise SpecError(f"{name} is {value!r}, allowed is {words}")
    if allowed and found not in allowed:
        if isinstance(found, str):
            raise SpecError(unknown(name, found, allowed))
        raise SpecError(f"{name} is {found}, allowed are {', '.join(map(str, allowed))}")
    return found


def _sequence(name: str, value: Any) -> Any:
    """The values of an option that takes several; a text alone is one, not its letters."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, (tuple, list)):
        raise SpecError(f"{name} is {value!r}, allowed is a list of texts")
    return value


def _numbers(kind: Any) -> str:
    return "whole numbers" if kind is int else "numbers"


def checked_path(name: str, value: Any) -> Path:
    """A path that may be given as text; raises SpecError for anything else."""
    found: Path = _one(name, value, Path, ())
    return found


def _path(value: Any) -> Path | None:
    return Path(value) if isinstance(value, (str, os.PathLike)) and _sound(str(value)) else None


def _sound(text: str) -> bool:
    """Whether a text can be a path; files of no system have a zero byte in their names."""
    return bool(text) and "\0" not in text


def _text(value: Any) -> str | None:
    return str(value) if isinstance(value, (str, os.PathLike)) and "\0" not in str(value) else None


def _whole(value: Any) -> int | None:
    return None if isinstance(value, bool) or not isinstance(value, Integral) else int(value)


def _number(value: Any) -> float | None:
    real = isinstance(value, Real) and not isinstance(value, bool)
    return float(value) if real and math.isfinite(value) else None


def _switch(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


_READERS: Mapping[Any, tuple[str, Callable[[Any], Any]]] = {
    Path: ("a path", _path),
    str: ("a text", _text),
    int: ("a whole number", _whole),
    float: ("a finite number", _number),
    bool: ("True or False", _switch),
}
