"""Literals: what parameters of a spec may be, read from text and written so that it reads the same.

Reading matches text; nothing is ever evaluated.
"""

from __future__ import annotations

import re
from numbers import Integral, Real
from typing import Any

from raygrid.core.errors import SpecError

Scalar = bool | int | float | str
"""What a parameter may be: `true`, `3`, `0.5`, or a text: a word such as `16/255`, `l2:1.3`,
`simclr`, or anything in double quotes, with a backslash before a quote or a backslash."""

_WORD = re.compile(r"[A-Za-z0-9_.:/*\-]+\Z")
_QUOTED = re.compile(r'"(?:[^"\\]|\\["\\])*"\Z')
_DIGITS = 4000  # of a whole number; Python itself refuses to read longer ones
_INT = re.compile(r"[+-]?\d+\Z")
_FLOAT = re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d+)([eE][+-]?\d+)?\Z")


def parse_scalar(text: str) -> Scalar:
    """Read one literal; raise SpecError if it is anything but a number, a truth value or a word."""
    if text in ("true", "false"):
        return text == "true"
    if _QUOTED.match(text):
        return _unquoted(text)
    if _INT.match(text):
        if len(text) > _DIGITS:
            raise SpecError(f"a number of {len(text)} digits is too long: {text[:20]}...")
        return int(text)
    if _FLOAT.match(text):
        return float(text)
    if _WORD.match(text):
        return text
    raise SpecError(
        f'{text!r} is not a literal: give a number, true, false, a plain word or "a text"'
    )


def format_scalar(value: Scalar) -> str:
    """Write a literal so that `parse_scalar` reads the same value; levels as n/255."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return format_float(value)
    if isinstance(value, int) or _is_word(value):
        return str(value)
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _unquoted(text: str) -> str:
    """The text between quotes; raises SpecError for characters that end a line."""
    value = re.sub(r"\\(.)", r"\1", text[1:-1])
    if not value.isprintable():
        raise SpecError(f"{text!r} holds characters that cannot be printed")
    return value


def _is_word(value: str) -> bool:
    """Whether a text reads as itself without quotes."""
    number = _INT.match(value) or _FLOAT.match(value) or value in ("true", "false")
    return bool(_WORD.match(value)) and not number


def format_float(value: float) -> str:
    """Shortest text of a float; a multiple of 1/255 that has no short decimal is a fraction."""
    text = repr(value)
    if len(text) > 8 and 0 < abs(value) <= 1:
        levels = round(value * 255)
        if levels and levels / 255 == value:
            return f"{levels}/255"
    return text


def plain_scalar(name: str, given: Any) -> Scalar:
    """A value as Python's own number or text, such as one of numpy's; None is the word `none`.

    Raises SpecError that names a value which is none of these.
    """
    if given is None:
        return "none"
    if type(given) in (bool, int, float, str):
        return given
    if isinstance(given, str):
        return str(given)
    if isinstance(given, Integral):
        return int(given)
    if isinstance(given, Real):
        return float(given)
    raise SpecError(f"{name} is {given!r}, allowed are a number, a text, True, False and None")
