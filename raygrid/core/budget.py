"""Perturbation budgets, measured on final uint8 pixels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Self

from raygrid.core.errors import SpecError
from raygrid.core.literals import format_float

NORMS = ("linf", "l2", "l0")
_TEXT = re.compile(
    r"(?:(?P<norm>[a-z0-9]+):)?(?P<num>\d+(?:\.\d*)?|\.\d+)(?:/(?P<den>\d+))?(?P<times>x)?\Z"
)


def _number(match: re.Match[str]) -> float:
    """The number of a budget as text, its fraction worked out."""
    return float(match["num"]) / int(match["den"] or 1)


def _like(norm: str, text: str | float) -> str:
    """A budget of a norm as it may have been meant by a number above 1, else a usual one."""
    number = str(text)
    whole = number.isdecimal() and int(number) <= 255
    if norm == "linf":
        return f"{number if whole else 8}/255"
    return f"l0:{number if whole else 1}" if norm == "l0" else f"l2:{number if whole else 1.3}"


@dataclass(frozen=True, order=True)
class Budget:
    """How much one image may change.

    norm: `linf` (largest change of a channel value), `l2` (Euclidean length over all values of
        the image) or `l0` (number of changed pixels).
    value: in units of the pixel range [0, 1] for `linf` and `l2` (8/255, 1.3), a count for `l0`.
    """

    norm: str
    value: float

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise SpecError(f"budget norm is {self.norm!r}, allowed are {', '.join(NORMS)}")
        given: Any = self.value
        number = isinstance(given, Real) and not isinstance(given, bool)
        if not number:
            raise SpecError(f"budget is {given!r}, allowed is a number, such as 8 / 255")
        if type(given) not in (int, float):
            object.__setattr__(self, "value", float(given))
        if not 0 <= self.value < float("inf"):
            raise SpecError(f"budget is {self.value}, allowed are finite values from 0")
        if self.norm == "linf" and self.value > 1:
            raise SpecError(f"linf budget is {self.value}, allowed are values up to 1 (255/255)")
        if self.norm == "l0" and self.value != int(self.value):
            raise SpecError(f"l0 budget is {self.value}, allowed are whole numbers of pixels")

    @classmethod
    def parse(cls, text: str | float, default: Budget | None, norms: Sequence[str] = NORMS) -> Self:
        """Read `16/255` (linf), `l2:1.3`, `l0:1` or `2x` (times the attack's `default`).

        A number without a norm is linf whatever the default, so that text means one thing.
        A budget of zero is refused here: a trial without a perturbation is the attack `clean`.
        norms: those that the attack takes, named where a number alone is too large.
        """
        match = _TEXT.match(str(text))
        if not match:
            raise SpecError(f"budget {text!r} is not of the form 8/255, l2:1.3, l0:1 or 2x")
        if match["den"] and int(match["den"]) == 0:
            raise SpecError(f"budget {text!r} divides by zero")
        number = value = _number(match)
        norm = match["norm"] or "linf"
        if match["times"] and default is None:
            raise SpecError(f"budget {text!r}: there is no default to multiply")
        if match["times"] and default is not None:
            if match["norm"] not in (None, default.norm):
                said = f"the default that it multiplies is {default.norm}"
                raise SpecError(f"budget {text!r}: {said}")
            norm, value = default.norm, value * default.value
        if value == 0:
            raise SpecError(f"budget {text!r} is zero; use the attack 'clean' for no perturbation")
        if match["times"] and default is not None and norm == "linf" and value > 1:
            raise SpecError(
                f"budget {text!r} is linf {value:g}, {number:g} times {default}; "
                f"allowed are values up to 1 (255/255), here {1 / default.value:g}x"
            )
        if not match["norm"] and norm == "linf" and value > 1:
            allowed = " or ".join(f"{each}, such as {_like(each, text)}" for each in norms)
            raise SpecError(
                f"budget {text!r} names no norm, so that it is linf and up to 1 (255/255); "
                f"allowed here: {allowed}"
            )
        return cls(norm, value)

    @staticmethod
    def times(text: object) -> float | None:
        """The factor of a budget that is named as a multiple of the default; None of another."""
        match = _TEXT.match(str(text))
        return _number(match) if match and match["times"] else None

    @property
    def levels(self) -> int:
        """The largest change of one value in whole 1/255 steps, as `linf` and `l2` allow it."""
        return int(self.value * 255 + 1e-6)

    @property
    def changes_nothing(self) -> bool:
        """Whether a budget above zero is less than the smallest change that pixels can show.

        One value changed by one level costs 1/255 under `linf` and `l2` alike. Under `l0` it costs
        1, and there budgets are whole.
        """
        return self.norm != "l0" and self.value > 0 and self.levels == 0

    def __str__(self) -> str:
        if self.norm == "l0":
            return f"l0:{int(self.value)}"
        if self.norm == "l2":
            return f"l2:{format_float(self.value)}"
        levels = round(self.value * 255)
        exact = levels and abs(self.value * 255 - levels) < 1e-9
        return f"{levels}/255" if exact else format_float(self.value)
