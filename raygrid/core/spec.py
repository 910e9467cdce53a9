"""Trial specs: `dataset/attack@ratio/defense+defense/architecture/learner/protocol/seed`.

A part is a name with literal keyword parameters, `jpeg(quality=10)`. Parsing splits and matches
text; nothing is ever evaluated. Printing is the inverse of parsing.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from typing import Any, Self

from raygrid.core.errors import SpecError, respelled

Scalar = bool | int | float | str
"""What a parameter may be: `true`, `3`, `0.5`, or a text: a word such as `16/255`, `l2:1.3`,
`simclr`, or anything in double quotes, with a backslash before a quote or a backslash."""

NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
_WORD = re.compile(r"[A-Za-z0-9_.:/*\-]+\Z")
_QUOTED = re.compile(r'"(?:[^"\\]|\\["\\])*"\Z')
_BUDGETS = ("budget", "base_budget")
_DIGITS = 4000  # of a whole number; Python itself refuses to read longer ones
_INT = re.compile(r"[+-]?\d+\Z")
_FLOAT = re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d+)([eE][+-]?\d+)?\Z")
METHODS: set[str] = set()
"""Names that registries know, of every kind: what a text that is no name may mean."""
_PERCENT = re.compile(r"(\d{1,2}(?:\.\d+)?(?= *%)|\d{2}|100)(?: *%)?\Z")
_SHAPE = "dataset/attack[@ratio]/defense[+defense]/architecture/learner/protocol/seed"


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


def _plain(name: str, given: Any) -> Scalar:
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


def _as_read(key: str, given: object) -> Scalar:
    """The value that `Part.parse` reads where this one was printed, so that parts compare equal."""
    value = _plain(key, given)
    if key in _BUDGETS and isinstance(value, str):
        return parse_scalar(value)  # a budget "0.03" prints as a number, without quotes
    if isinstance(value, float):
        return parse_scalar(format_float(value))  # 1/3 prints as 85/255, which is read as a word
    return value


@dataclass(frozen=True, order=True)
class Part:
    """One method by name with the parameters that the user set, sorted by name."""

    name: str
    params: tuple[tuple[str, Scalar], ...] = ()

    @classmethod
    def of(cls, name: str, /, **params: Scalar | None) -> Self:
        """The method with these parameters; raises SpecError for values that no spec can hold."""
        return cls(name, tuple(sorted((key, _as_read(key, raw)) for key, raw in params.items())))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `name` or `name(key=value, ...)`; raise SpecError on anything else."""
        text = text.strip()
        head, bracket, rest = text.partition("(")
        if not NAME.match(head):
            raise SpecError(
                f"{text!r} is not a method: expected name or name(key=value, ...), in lower case "
                f"letters, digits and _{_meant(head)}"
            )
        if not bracket:
            return cls(head)
        if not rest.endswith(")"):
            raise SpecError(f"{text!r} has no closing bracket at its end{_share(text)}")
        params: dict[str, Scalar] = {}
        pieces = split_outside(rest[:-1], ",")
        for item in filter(None, (piece.strip() for piece in pieces)):
            key, equals, value = (piece.strip() for piece in item.partition("="))
            if not equals or not NAME.match(key):
                raise SpecError(f"{item!r} in {text!r} is not key=value")
            if key in params:
                raise SpecError(f"{text!r} sets {key!r} twice")
            params[key] = parse_scalar(value)
        return cls.of(head, **params)

    def with_params(self, **params: Scalar | None) -> Self:
        """The same method with these parameters set."""
        return type(self).of(self.name, **{**dict(self.params), **params})

    def __str__(self) -> str:
        if not self.params:
            return self.name
        inner = ", ".join(f"{key}={format_scalar(value)}" for key, value in self.params)
        return f"{self.name}({inner})"


def _meant(head: str) -> str:
    """What somebody wanted who typed this for a name: a share, several methods, a known one."""
    if "," in head:
        return "; several stand apart, with blanks between"
    near = respelled(head, METHODS)
    return _share(head) or (f", such as {near!r}" if near else "")


def _share(text: str) -> str:
    """How a poison ratio is given that stands behind an attack outside of a spec."""
    _, _, share = _split_ratio(text)
    if not share:
        return ""
    return (
        f"; the share that is poisoned is given apart: --poison-ratios {share} of a grid, "
        f"--ratio {share} of `raygrid poison`"
    )


@dataclass(frozen=True, order=True)
class TrialSpec:
    """What one trial is: a point of the grid. `str` and `parse` are inverse to each other."""

    dataset: Part
    attack: Part
    defense: tuple[Part, ...]
    architecture: Part
    learner: Part
    protocol: Part
    seed: int = 0
    poison_ratio: float = field(default=1.0)

    def __post_init__(self) -> None:
        """Keys and rows hold Python's own numbers, so that those of numpy become them here."""
        chain: Any = self.defense
        if isinstance(chain, list):
            object.__setattr__(self, "defense", chain := tuple(chain))
        if chain == ():
            raise SpecError("a trial needs a defense; 'none' is the one that does nothing")
        if not isinstance(chain, tuple) or not all(isinstance(each, Part) for each in chain):
            raise SpecError(f"defense is {chain!r:.60}, allowed is a tuple of Parts{_part(chain)}")
        for name in ("dataset", "attack", "architecture", "learner", "protocol"):
            if not isinstance(given := getattr(self, name), Part):
                raise SpecError(f"{name} is {given!r:.60}, allowed is a Part{_part(given)}")
        seed, ratio = _number(self.seed, Integral), _number(self.poison_ratio, Real)
        if seed is None or seed < 0:
            raise SpecError(f"seed is {self.seed!r}, allowed are whole numbers from 0")
        if ratio is None or not 0 <= ratio <= 1:
            raise SpecError(f"poison_ratio is {self.poison_ratio!r}, allowed are 0 to 1")
        object.__setattr__(self, "seed", int(seed))
        object.__setattr__(self, "poison_ratio", float(ratio))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a spec string; raise SpecError that names the faulty piece."""
        pieces = list(split_outside(text.strip(), "/"))
        if len(pieces) != 7:
            raise SpecError(f"{text!r} has {len(pieces)} pieces, expected 7: {_SHAPE}")
        dataset, attack, defense, architecture, learner, protocol, seed = pieces
        attack_name, at, ratio_text = _split_ratio(attack)
        return cls(
            dataset=Part.parse(dataset),
            attack=Part.parse(attack_name),
            defense=parse_chain(defense),
            architecture=Part.parse(architecture),
            learner=Part.parse(learner),
            protocol=Part.parse(protocol),
            seed=parse_seed(seed),
            poison_ratio=parse_ratio(ratio_text) if at else 1.0,
        )

    def replace(self, **changes: object) -> Self:
        """A copy with these fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]

    @property
    def chain(self) -> str:
        """The defenses in their order, as they stand in a spec: `grayscale+jpeg(quality=10)`."""
        return "+".join(map(str, self.defense))

    def __str__(self) -> str:
        # A plain decimal: a fraction's slash would end the piece here, outside brackets.
        ratio = "" if self.poison_ratio == 1.0 else f"@{self.poison_ratio!r}"
        return (
            f"{self.dataset}/{self.attack}{ratio}/{self.chain}/{self.architecture}"
            f"/{self.learner}/{self.protocol}/{self.seed}"
        )


def _number(given: Any, kind: type) -> Any:
    """The number itself where it is one of this kind, else None; True and False are none."""
    return given if isinstance(given, kind) and not isinstance(given, bool) else None


def _part(given: object) -> str:
    """How a text that stands in the place of a part becomes one."""
    return f": Part.parse({given!r})" if isinstance(given, str) else ""


def parse_chain(text: str) -> tuple[Part, ...]:
    """Read `defense` or `defense+defense`; the order is the order in which they act."""
    return tuple(Part.parse(piece) for piece in split_outside(text, "+"))


def parse_ratio(text: str) -> float:
    """Read a poison ratio; raise SpecError outside [0, 1]."""
    value: Scalar | None = None
    with contextlib.suppress(SpecError):  # 80% is no literal
        value = parse_scalar(text.strip())
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        percent = _PERCENT.match(text.strip())
        near = f" (did you mean {float(percent[1]) / 100:g}?)" if percent else ""
        raise SpecError(f"poison_ratio {text!r:.40} is not a number from 0 to 1{near}")
    return float(value)


def parse_seed(text: str) -> int:
    """Read a seed; raise SpecError if it is no whole number from 0."""
    digits = text.strip()
    if not (digits.isascii() and digits.isdecimal()):
        several = re.fullmatch(r"\d+(?:[-,:.]+\d+)+", digits)
        hint = "; several stand apart, with blanks between: 0 1 2" if several else ""
        raise SpecError(f"seed {text!r} is not a whole number from 0{hint}")
    return int(parse_scalar(digits))


def split_outside(text: str, separator: str) -> Iterator[str]:
    """Split at `separator` outside brackets and quotes."""
    start = 0
    for position in _places_outside(text, separator):
        yield text[start:position]
        start = position + 1
    yield text[start:]


def _places_outside(text: str, wanted: str) -> Iterator[int]:
    """Where a character stands outside brackets and quotes."""
    depth, quoted, escaped = 0, False, False
    for position, char in enumerate(text):
        if escaped:
            escaped = False
        elif quoted:
            escaped, quoted = char == "\\", char != '"'
        elif char == '"':
            quoted = True
        else:
            depth += (char == "(") - (char == ")")
            if char == wanted and depth == 0:
                yield position


def _split_ratio(attack: str) -> tuple[str, str, str]:
    place = max(_places_outside(attack, "@"), default=None)
    return (attack, "", "") if place is None else (attack[:place], "@", attack[place + 1 :])
