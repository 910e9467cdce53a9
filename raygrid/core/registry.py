"""Methods and the registries that find them by name.

A method is a frozen dataclass whose fields are its parameters. Its card says where it comes from.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar, cast

from raygrid.core.admission import refuse_incomplete, types_of
from raygrid.core.budget import NORMS, Budget
from raygrid.core.coercion import coerce
from raygrid.core.errors import SpecError, unknown
from raygrid.core.literals import Scalar
from raygrid.core.plugins import load_installed
from raygrid.core.spec import KNOWN_METHODS, NAME_PATTERN, Part


@dataclass(frozen=True)
class Card:
    """Where a method comes from and what it should reach.

    paper, code: citation, and repository@commit or "none".
    published: accuracy as a fraction, by spec string (`seed` 0 stands for the paper's runs).
    needs: what it takes besides the images; cost: in forward passes per image, or words.
    notes: disagreements between sources and which side this file takes.
    """

    paper: str
    code: str = "none"
    published: Mapping[str, float] = field(default_factory=dict)
    needs: str = "nothing"
    cost: str = "none"
    notes: str = ""


@dataclass(frozen=True, kw_only=True)
class Method:
    """Base of everything that a spec can name. Subclasses are frozen dataclasses too.

    quick: parameters for small networks and minutes on a CPU, where the defaults take hours; no
    part of the key. Empty: the defaults are taken.
    tiny: parameters for a few dozen images of 16 pixels and a second, with which the tests make
    this method; no part of the key either. Empty: the defaults are taken.
    younger: fields that came after results had been kept; at their defaults they are no part of
    the key, so that those results are still found.
    """

    id: ClassVar[str] = ""
    card: ClassVar[Card]
    version: ClassVar[int] = 1
    quick: ClassVar[Mapping[str, Scalar]] = {}
    tiny: ClassVar[Mapping[str, Scalar]] = {}
    younger: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def lacking(cls) -> Iterable[str]:
        """What is wrong with the class beyond what holds for every kind, in words."""
        return ()

    def resolved(self) -> dict[str, Any]:
        """All that decides what this method does, as JSON values: id, version, every field."""
        every = {f: getattr(self, f.name) for f in dataclasses.fields(self)}
        old = {f for f in every if f.name in self.younger and every[f] == f.default}
        fields = {f.name: value for f, value in every.items() if f not in old}
        plain = {k: str(v) if isinstance(v, Budget) else v for k, v in fields.items()}
        return {"id": self.id, "version": self.version, **plain}

    def part(self, base: Method | None = None) -> Part:
        """The shortest part that makes this method: only the parameters that are not defaults.

        base: the method whose parameters count as the defaults, if not the class's own.
        """
        changed: dict[str, Scalar | None] = {}
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if value != (f.default if base is None else getattr(base, f.name)):
                changed[f.name] = str(value) if isinstance(value, Budget) else value
        return Part.of(self.id, **changed)

    def skip(self, combination: Combination) -> str | None:
        """Why this method cannot take part in `combination`, or None if it can."""
        return None


M = TypeVar("M", bound=Method)
K = TypeVar("K", bound=Method)
F = TypeVar("F", bound=Callable[..., Any])

_FORGETS: list[Callable[[], None]] = []
"""What forgets the answers of every function that is `cached`."""


def cached(function: F) -> F:
    """Decorator: keep the answers of a function that asks which methods there are, or what of them.

    They are forgotten when another method is registered.
    """
    kept = functools.cache(function)
    _FORGETS.append(kept.cache_clear)
    return cast(F, kept)


@dataclass(frozen=True)
class Combination:
    """The methods of one trial side by side, for `skip` to look at.

    views: whether the learner learns from pairs of views (`Learner.views`).
    targets: whether the protocol gives every trial a set-up with a target.
    pretrains: whether the protocol has a pre-trained extractor for this trial.
    train_size: training images that are left beside the protocol's validation part.
    stops_early: whether the test accuracy may end a trial before its last epoch.
    images: those that the attack is given, 0 where nobody looked at the data yet.
    """

    dataset: Method
    attack: Method
    defense: tuple[Method, ...]
    architecture: Method
    learner: Method
    protocol: Method
    image_size: int
    classes: int
    poison_ratio: float
    train_size: int
    views: bool = False
    targets: bool = False
    pretrains: bool = False
    stops_early: bool = False
    images: int = 0


class Registry(Generic[M]):
    """Methods of one kind by id, those of installed packages among them.

    own: how a person names one of their own, `{}` for its name, said where a name is not known.
    """

    def __init__(
        self, kind: str, base: type[M], own: str = "loaded with --import FILE (in Python: imported)"
    ) -> None:
        self.kind = kind
        self.own = own
        self.base = base
        self._methods: dict[str, type[M]] = {}
        self._types: dict[str, dict[str, Any]] = {}

    def register(self, name: str) -> Callable[[type[K]], type[K]]:
        """Class decorator: file the class under `name`.

        A taken or malformed name raises SpecError, and so does a class that lacks something.
        """
        given: Any = name  # the class itself, where the parentheses are left out
        named = isinstance(given, str)
        require(named, f"{self.kind} name is {given!r}, allowed is a text: @register('my_name')")

        def add(cls: type[K]) -> type[K]:
            self._check(name, cls)
            cls.id = name
            self._methods[name] = cls  # type: ignore[assignment]
            KNOWN_METHODS.add(name)
            for forget in _FORGETS:
                forget()
            return cls

        return add

    def _check(self, name: str, cls: type[Method]) -> None:
        if not NAME_PATTERN.match(name):
            raise SpecError(f"{self.kind} name {name!r} is not lower_case")
        if name in self._methods:
            taken = self._methods[name].__module__
            raise SpecError(f"{self.kind} {name!r} is already defined in {taken}")
        if not (isinstance(cls, type) and issubclass(cls, self.base)):
            raise SpecError(f"{getattr(cls, '__name__', repr(cls))} is no {self.base.__name__}")
        if not isinstance(cls.__dict__.get("card", getattr(cls, "card", None)), Card):
            raise SpecError(f"{self.kind} {name!r} has no card")
        refuse_incomplete(cls)

    def __iter__(self) -> Iterator[str]:
        load_installed()
        return iter(sorted(self._methods))

    def __len__(self) -> int:
        load_installed()
        return len(self._methods)

    def __contains__(self, name: object) -> bool:
        load_installed()
        return name in self._methods

    def __getitem__(self, name: str) -> type[M]:
        self.expect(name)
        return self._methods[name]

    def expect(self, name: str) -> None:
        """Raise SpecError that says the nearest name unless a method is filed under `name`."""
        if name not in self:
            own = f"; one of your own is {self.own.format(name)}"
            raise SpecError(unknown(self.kind, name, self._methods) + own)

    def make(self, part: Part | str) -> M:
        """Build the method that `part` names; raise SpecError for a bad name or parameter."""
        given: Any = part  # callers are not always type-checked
        named = isinstance(given, Part | str)
        require(named, f"{self.kind} is {given!r}, allowed is a text such as {next(iter(self))!r}")
        part = Part.parse(part) if isinstance(part, str) else part
        cls = self[part.name]
        types_ = self._types_of(part.name)
        fields = {f.name: f for f in dataclasses.fields(cls)}
        values: dict[str, Any] = {}
        for key, raw in part.params:
            if key not in fields:
                raise SpecError(f"{part}: " + unknown(f"parameter of {part.name}", key, fields))
            try:
                norms = getattr(cls, "norms", NORMS)
                values[key] = coerce(raw, types_[key], fields[key].default, norms)
            except SpecError as error:
                raise SpecError(f"{part}: {key}: {error}") from None
        try:
            return cls(**values)
        except SpecError as error:
            raise SpecError(f"{part}: {error}") from None

    def tiny(self, part: Part | str) -> M:
        """Build the method at its `tiny` parameters; those that the part names win."""
        part = Part.parse(part) if isinstance(part, str) else part
        return self.make(part.with_params(**{**self[part.name].tiny, **dict(part.params)}))

    def _types_of(self, name: str) -> dict[str, Any]:
        """The types of a method's fields, worked out once: a large grid asks very often."""
        if name not in self._types:
            self._types[name] = types_of(self._methods[name])
        return self._types[name]


def require(condition: bool, message: str) -> None:
    """Refuse a parameter: raise SpecError with `message` unless `condition` holds."""
    if not condition:
        raise SpecError(message)


def lacks(package: str, extra: str, module: str | None = None) -> str | None:
    """What to do about a package that is not installed, None if it is.

    module: what is imported of it, if that has another name.
    """
    if importlib.util.find_spec(module or package) is not None:
        return None
    return f"needs the package {package}: `uv run --extra {extra} ...`, or pip install {package}"
