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
from raygrid.core.literals import Scalar, format_float, format_scalar, parse_scalar, plain_scalar

NAME_PATTERN = re.compile(r"[a-z][a-z0-9_]*\Z")
_BUDGETS = ("budget", "base_budget")
KNOWN_METHODS: set[str] = set()
"""Names that registries know, of every kind: what a text that is no name may mean."""
_PERCENT = re.compile(r"(\d{1,2}(?:\.\d+)?(?= *%)|\d{2}|100)(?: *%)?\Z")
_SHAPE = "dataset/attack[@ratio]/defense[+defense]/architecture/learner/protocol/seed"


def _as_read(key: str, given: object) -> Scalar:
    """The value that `Part.parse` reads where this one was printed, so that parts compare equal."""
    value = plain_scalar(key, given)
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
        if not NAME_PATTERN.match(head):
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
            if not equals or not NAME_PATTERN.match(key):
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
    near = respelled(head, KNOWN_METHODS)
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
