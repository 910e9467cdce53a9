"""What a class must be to be filed as a method: whatever would fail later is refused at once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any, get_type_hints

from raygrid.core.budget import Budget
from raygrid.core.errors import SpecError
from raygrid.core.spec import TrialSpec

DEFAULT_TYPES = (bool, int, float, str, type(None), Budget)
"""Types of defaults: of these alone a spec, a key and a row say the same."""


def refuse_incomplete(cls: type) -> None:
    """Raise one SpecError that names the class and all that it lacks, if it lacks anything."""
    published = _published(cls.card.published)  # type: ignore[attr-defined]
    faults = [*_shape(cls), *_class_values(cls), *published]
    faults = faults or [*cls.lacking()]  # type: ignore[attr-defined]
    if faults:
        raise SpecError(f"class {cls.__name__}: {'; '.join(faults)}")


def _shape(cls: type) -> Iterator[str]:
    if "__dataclass_params__" not in vars(cls):
        # Fields that it changes would keep the values of the class above, in its key as well.
        yield "it lacks its own @dataclass(frozen=True, kw_only=True), below the line that files it"
        return
    abstract = (n for n in dir(cls) if getattr(getattr(cls, n, None), "__isabstractmethod__", 0))
    yield from (f"it does not define {name}" for name in abstract)
    for f in dataclasses.fields(cls):
        if f.default is dataclasses.MISSING:
            yield f"field {f.name} has no default, or one that is made anew: give it a plain value"
        elif fault := _default(f):
            yield f"field {f.name} is {f.default!r}, {fault}"


def _default(field: dataclasses.Field[Any]) -> str:
    """What is wrong with the default of a field, which is part of keys; empty if nothing is."""
    value, kind = field.default, str(field.type).replace(" ", "")
    if type(value) not in DEFAULT_TYPES:
        return "allowed is a plain value: a number or text of Python's own, True, False, None"
    if isinstance(value, float) and not math.isfinite(value):
        return "allowed are finite numbers"
    real = field.type is float or kind in ("float", "float|None", "None|float")
    # Set in a spec it would be a float, with another key.
    return f"but a float: write {float(value)!r}" if real and type(value) is int else ""


def _class_values(cls: type) -> Iterator[str]:
    """Values of the class that are announced and that nobody gave."""
    said = _annotations(cls)
    unset = (n for n, kind in said.items() if "ClassVar" in str(kind) and not hasattr(cls, n))
    yield from (f"it does not set {name}: {said[name]}" for name in unset)


def _annotations(cls: type) -> dict[str, Any]:
    """What all its classes say of their fields and values, as written there."""
    return {n: a for c in cls.__mro__ for n, a in vars(c).get("__annotations__", {}).items()}


def _published(published: Any) -> Iterator[str]:
    """What is wrong with the printed numbers of a card, a mapping of fractions by spec."""
    if not isinstance(published, Mapping):
        yield f"published is {published!r}, allowed are fractions by spec: {{'.../0': 0.9}}"
        return
    for text, value in published.items():
        try:
            TrialSpec.parse(text)
        except SpecError as error:
            yield f"published {text!r}: {error}"
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number and 0 <= value <= 1):
            yield f"published {text!r} is {value!r}, allowed are fractions from 0 to 1"


def types_of(cls: type) -> dict[str, Any]:
    """The types of a class's fields; raises SpecError that names those that cannot be told."""
    try:
        return get_type_hints(cls)
    except Exception as error:  # an annotation is any expression
        missing = getattr(error, "name", None) or ""
        fields = [n for n, a in _annotations(cls).items() if missing and missing in str(a)]
        raise SpecError(
            f"class {cls.__name__}: the type of {' and '.join(fields) or 'a field'} cannot be told "
            f"({error}); import its name where it is not only for type checkers"
        ) from error
