"""Registries and what holds for every method in them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, get_args, get_type_hints

import pytest

from raygrid.architectures import ARCHITECTURES
from raygrid.attacks import ATTACKS
from raygrid.core.budget import Budget
from raygrid.core.errors import SpecError, unknown
from raygrid.core.registry import Card, Method, Registry, require
from raygrid.core.spec import Part, TrialSpec
from raygrid.datasets import DATASETS
from raygrid.defenses import DEFENSES
from raygrid.learners import LEARNERS
from raygrid.protocols import PROTOCOLS
from raygrid.trials.resolve import resolve

ALL = [ARCHITECTURES, ATTACKS, DATASETS, DEFENSES, LEARNERS, PROTOCOLS]
METHODS = [(r, name) for r in ALL for name in r]


@dataclass(frozen=True, kw_only=True)
class Toy(Method):
    """For these tests."""

    card = Card(paper="none")
    budget: Budget = Budget("linf", 8 / 255)
    steps: int = 10
    rate: float = 0.5
    mode: Literal["fast", "slow"] = "fast"
    on: bool = False
    limit: float | None = None
    share: int | float = 10
    label: str | float = "all"

    def __post_init__(self) -> None:
        require(self.steps > 0, f"steps is {self.steps}, allowed are whole numbers from 1")


@pytest.fixture
def toys() -> Registry[Toy]:
    registry = Registry("toy", Toy)
    registry.register("toy_method")(Toy)
    return registry


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ("toy_metod", "did you mean 'toy_method'"),
        ("toy_method(stesp=3)", "did you mean 'steps'"),
        ("toy_method(steps=0)", "steps is 0, allowed"),
        ("toy_method(steps=1.5)", "not of type int"),
        ("toy_method(steps=true)", "not of type int"),
        ("toy_method(mode=fats)", "did you mean 'fast'"),
        ("toy_method(on=1)", "not of type bool"),
        ("toy_method(rate=abc)", "'abc' is not a number"),
        ("toy_method(limit=None)", "'None' is not a number (did you mean 'none'?)"),
        ("toy_method(share=abc)", "'abc' is not of type int and 'abc' is not a number"),
        ("toy_method(share=none)", "'none' is not of type int and 'none' is not a number"),
        ("toy_method(budget=-1)", "not of the form"),
    ],
)
def test_bad_parts_are_refused(toys: Registry[Toy], part: str, says: str) -> None:
    with pytest.raises(SpecError) as caught:
        toys.make(part)
    assert says in str(caught.value)


def test_only_changed_parameters_are_printed(toys: Registry[Toy]) -> None:
    text = "toy_method(budget=16/255, limit=0.5, steps=3)"
    made = toys.make("toy_method(steps=3, rate=1/2, budget=2x, limit=0.5)")
    assert str(made.part()) == text
    assert toys.make(text) == made


@pytest.mark.parametrize(
    ("text", "value"),
    [("share=0.25", 0.25), ("share=3", 3), ("label=0.5", 0.5), ("label=none", "none")],
)
def test_every_member_of_a_union_is_allowed(
    toys: Registry[Toy], text: str, value: int | float | str
) -> None:
    made = getattr(toys.make(f"toy_method({text})"), text.partition("=")[0])
    assert (made, type(made)) == (value, type(value))


def test_what_is_no_name_and_what_is_no_class_are_refused_at_once(toys: Registry[Toy]) -> None:
    for name in (Toy, 3):
        with pytest.raises(SpecError, match=r"toy name is .*, allowed is a text: @register\('my"):
            toys.register(name)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="3 is no Toy"):
        toys.register("number")(3)  # type: ignore[type-var]
    assert list(toys) == ["toy_method"]


def test_taken_and_malformed_names_raise(toys: Registry[Toy]) -> None:
    with pytest.raises(SpecError, match="already defined"):
        toys.register("toy_method")(Toy)
    with pytest.raises(SpecError, match="not lower_case"):
        toys.register("Toy-Method")(Toy)


@pytest.mark.parametrize(("registry", "name"), METHODS, ids=lambda v: getattr(v, "kind", v))
def test_every_method_is_complete(registry: Registry[Method], name: str) -> None:
    cls = registry[name]
    made = registry.make(name)
    assert made.id == name
    assert cls.card.paper
    assert cls.__doc__
    assert not cls.__doc__.startswith(f"{cls.__name__}(")
    assert str(made.part()) == name
    assert registry.make(made.part()) == made
    for text in cls.card.published:
        TrialSpec.parse(text)
    for value in cls.card.published.values():
        assert 0 <= value <= 1


@pytest.mark.parametrize(("registry", "name"), METHODS, ids=lambda v: getattr(v, "kind", v))
def test_version_and_parameters_are_in_what_is_hashed(
    registry: Registry[Method], name: str
) -> None:
    resolved, younger = registry.make(name).resolved(), registry[name].younger
    assert resolved["version"] >= 1
    assert {f.name for f in dataclasses.fields(registry[name])} - younger <= set(resolved)
    assert not younger & set(resolved)


@pytest.mark.parametrize(("registry", "name"), METHODS, ids=lambda v: getattr(v, "kind", v))
def test_no_number_of_a_method_is_without_end(registry: Registry[Method], name: str) -> None:
    hints = get_type_hints(registry[name])
    for field in dataclasses.fields(registry[name]):
        if float not in (hints[field.name], *get_args(hints[field.name])):
            continue
        for value in ("nan", "inf", "-inf", "1e999", "1" * 400):
            with pytest.raises(SpecError, match=f"{field.name}: .* is not a finite number"):
                registry.make(f"{name}({field.name}={value})")


@pytest.mark.parametrize(
    ("registry", "part"),
    [
        (LEARNERS, "byol(hidden=0)"),
        (LEARNERS, "byol(output=0)"),
        (LEARNERS, "moco(hidden=0)"),
        (LEARNERS, "moco(output=0)"),
        (ATTACKS, "clbd(step=-1)"),
        (ATTACKS, "clbd(surrogate_epochs=-1)"),
        (ATTACKS, "convex_polytope(tolerance=-1)"),
        (ATTACKS, "cp(momentum=-1)"),
        (ATTACKS, "feature_collision(weight=-1)"),
        (ATTACKS, "htbd(step=-1)"),
        (ATTACKS, "htbd(decay=-1)"),
        (ATTACKS, "htbd(enough=-1)"),
        (ATTACKS, "witches_brew(lr=-1)"),
        *((PROTOCOLS, f"{name}(min_epochs=-1)") for name in PROTOCOLS),
    ],
    ids=lambda v: getattr(v, "kind", v),
)
def test_a_number_below_what_is_possible_is_refused(registry: Registry[Method], part: str) -> None:
    key, _, value = part.partition("(")[2].rstrip(")").partition("=")
    with pytest.raises(SpecError, match=rf"{key} is {value}(\.0)?, allowed"):
        registry.make(part)


@pytest.mark.parametrize("registry", ALL, ids=lambda r: r.kind)
def test_an_unknown_name_names_the_known_ones(registry: Registry[Method]) -> None:
    first = next(iter(registry))
    with pytest.raises(SpecError) as caught:
        registry.make(Part(first + "x"))
    assert repr(first) in str(caught.value)


@pytest.mark.parametrize("package", ["attacks", "defenses", "learners", "datasets"])
def test_every_file_of_a_package_is_imported(package: str) -> None:
    folder = Path(__file__).parents[2] / "raygrid" / package
    listed = (folder / "__init__.py").read_text()
    for path in folder.glob("*.py"):
        if path.stem not in ("__init__", "base") and "register(" in path.read_text():
            assert f"import {path.stem} " in listed, f"{path.name} is not imported"


def test_the_nearest_name_is_one_with_the_same_letters() -> None:
    known = ["ops", "lsp", "clean"]
    assert "did you mean 'lsp'?" in unknown("attack", "lps", known)
    assert "did you mean 'clean'?" in unknown("attack", "clena", known)
    assert "did you mean" not in unknown("attack", "xyz", known)


@dataclass(frozen=True, kw_only=True)
class Bounded(Method):
    """Perturbs only where it is told to."""

    card = Card(paper="none")
    norms: ClassVar[tuple[str, ...]] = ("l2",)
    budget: Budget | None = None


def test_a_budget_that_may_be_none_has_no_multiples_and_names_its_norms() -> None:
    registry = Registry("toy", Bounded)
    registry.register("bounded")(Bounded)
    assert registry.make("bounded(budget=l2:1.3)").budget == Budget("l2", 1.3)
    assert registry.make("bounded(budget=none)").budget is None
    with pytest.raises(SpecError, match=r"budget '2x': there is no default to multiply"):
        registry.make("bounded(budget=2x)")
    with pytest.raises(SpecError, match=r"allowed here: l2, such as l2:3\Z"):
        registry.make("bounded(budget=3)")


def test_an_augmentation_that_nobody_knows_is_a_fault_of_the_spec(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(DATASETS["photo_digits"], "augmentation", "flip")
    said = "unknown augmentation of photo_digits 'flip'.*known: crop, "
    with pytest.raises(SpecError, match=said):
        resolve("photo_digits/clean/none/small_cnn/supervised/wxl/0", None)
