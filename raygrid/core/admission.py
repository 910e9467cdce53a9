"""What a class must be to be filed as a method: whatever would fail later is refused at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, get_type_hints

from raygrid.core.budget import Budget
from raygrid.core.errors import SpecError
from raygrid.core.spec import TrialSpec


def refuse_incomplete(cls: type) -> None:
    """Raise one SpecError that names the class and all that it lacks, if it lacks anything."""
    faults = [*_shape(cls), *_published(cls.card.published)]  # type: ignore[attr-defined]
    if faults:
        raise SpecError(f"class {cls.__name__}: {'; '.join(faults)}")


def _shape(cls: type) -> Iterator[str]:
    if "__dataclass_params__" not in vars(cls):
        # Fields that it changes would keep the values of the class above, in its key as well.
        yield "it lacks its own @dataclass(frozen=True, kw_only=True), below the line that files it"
        return
    budgeted = hasattr(cls, "norms")  # an attack; elsewhere the word may mean anything
    abstract = (n for n in dir(cls) if getattr(getattr(cls, n, None), "__isabstractmethod__", 0))
    yield from (f"it does not define {name}" for name in abstract)
    for f in dataclasses.fields(cls):
        if f.default is dataclasses.MISSING:
            yield f"field {f.name} has no default, or one that is made anew: give it a plain value"
        elif f.name == "budget" and budgeted and not isinstance(f.default, Budget | None):
            yield f'field budget is {f.default!r}, allowed is a Budget: Budget("linf", 8 / 255)'


def _published(published: Mapping[str, float]) -> Iterator[str]:
    """What is wrong with the printed numbers of a card."""
    for text, value in published.items():
        try:
            TrialSpec.parse(text)
        except SpecError as error:
            yield f"published {text!r}: {error}"
        if not 0 <= value <= 1:
            yield f"published {text!r} is {value}, allowed are fractions from 0 to 1"


def types_of(cls: type) -> dict[str, Any]:
    """The types of a class's fields; raises SpecError that names those that cannot be told."""
    try:
        return get_type_hints(cls)
    except Exception as error:  # an annotation is any expression
        missing = getattr(error, "name", None) or ""
        said = {n: a for c in cls.__mro__ for n, a in vars(c).get("__annotations__", {}).items()}
        fields = [n for n, a in said.items() if missing and missing in str(a)]
        raise SpecError(
            f"class {cls.__name__}: the type of {' and '.join(fields) or 'a field'} cannot be told "
            f"({error}); import its name where it is not only for type checkers"
        ) from error
