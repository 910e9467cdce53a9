"""Specs: text and back, refusals, budgets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raygrid.attacks import ATTACKS
from raygrid.core.budget import Budget
from raygrid.core.enforcement import size_of_change
from raygrid.core.errors import SpecError, unknown
from raygrid.core.labels import budget_text
from raygrid.core.literals import format_float, parse_scalar
from raygrid.core.spec import Part, TrialSpec, parse_ratio

LONG = "photo_digits/lsp(budget=l2:1.3)@0.8/grayscale+jpeg(quality=10)/resnet18/simclr/quick/3"
names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
scalars = st.one_of(
    st.booleans(),
    st.integers(-(10**6), 10**6),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["16/255", "l2:1.3", "2x", "simclr", "a.b", "25", "true", "1e3", ""]),
    st.text(st.characters(exclude_categories=["C", "Z"], include_characters=" ")),
)
parts = st.builds(lambda n, p: Part.of(n, **p), names, st.dictionaries(names, scalars, max_size=3))


def test_a_long_spec_round_trips() -> None:
    assert str(TrialSpec.parse(LONG)) == LONG


@given(parts, st.lists(parts, min_size=1, max_size=3), st.integers(0, 99), st.floats(0, 1))
def test_parse_is_the_inverse_of_str(
    part: Part, chain: list[Part], seed: int, ratio: float
) -> None:
    spec = TrialSpec(part, part, tuple(chain), part, part, part, seed, ratio)
    assert TrialSpec.parse(str(spec)) == spec


@pytest.mark.parametrize(
    "value",
    ["my poisons/num_poisons=25/bp.pt", "Übergröße", "~a@b+c#d(e),f/g", 'say "no"', "C:\\x", ")("],
)
def test_quotes_hold_every_text(value: str) -> None:
    part = Part.of("file", path=value)
    spec = TrialSpec.parse(f"a/{part}@0.5/c+d/e/f/g/0")
    assert (spec.attack, spec.poison_ratio) == (part, 0.5)
    assert TrialSpec.parse(str(spec)) == spec


def test_a_level_is_one_value_however_it_is_written() -> None:
    for text, value in (("85/255", 1 / 3), ("8/255", 8 / 255), ("1.0", 255 / 255)):
        assert Part.of("a", step=value) == Part.parse(f"a(step={text})")
    assert Part.of("a", step=1 / 3) != Part.of("a", step=0.3333)


def test_a_text_that_looks_like_a_number_stays_a_text() -> None:
    assert Part.parse('folder(name="25")') == Part.of("folder", name="25")
    assert Part.parse("folder(name=25)") == Part.of("folder", name=25)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('a(b="c)', "is not a literal"),
        ('a(b="c"d)', "not a literal"),
        ('a(b="c\nd")', "cannot be printed"),
        (f"a(b={'9' * 5000})", "a number of 5000 digits is too long"),
    ],
)
def test_faulty_literals_are_one_line(text: str, says: str) -> None:
    with pytest.raises(SpecError) as caught:
        Part.parse(text)
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_ratio_prints_without_a_slash() -> None:
    spec = TrialSpec.parse("a/b@0.3333333333333333/c/d/e/f/0")
    assert TrialSpec.parse(str(spec)) == spec


def test_levels_print_as_fractions() -> None:
    assert format_float(8 / 255) == "8/255"
    assert format_float(0.2) == "0.2"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a/b/c", "has 3 pieces"),
        ("a/b/c/d/e/f/x", "seed 'x'"),
        ("a/b@2/c/d/e/f/0", "poison_ratio '2'"),
        ("a/b@-0.1/c/d/e/f/0", "poison_ratio '-0.1'"),
        ("a/b(c)/c/d/e/f/0", "'c' in 'b(c)' is not key=value"),
        ("a/b(c=1, c=2)/c/d/e/f/0", "sets 'c' twice"),
        ("a/b(c=__import__('os'))/c/d/e/f/0", "is not a literal"),
        ("a/b(c=[1])/c/d/e/f/0", "is not a literal"),
        ("a/B/c/d/e/f/0", "'B' is not a method"),
        ("a/b(c=1/c/d/e/f/0", "pieces"),
    ],
)
def test_bad_specs_are_refused_with_the_piece(text: str, says: str) -> None:
    with pytest.raises(SpecError) as caught:
        TrialSpec.parse(text)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "near"),
    [
        *(("80%", "0.8"), ("80", "0.8"), ("80 %", "0.8"), ("2.5%", "0.025"), ("100%", "1")),
        *(("1.5", ""), ("-0.1", ""), ("150%", ""), ("2", ""), ("4/5", ""), ("half", ""), ("", "")),
    ],
)
def test_a_ratio_that_is_none_is_said_with_the_share_that_was_meant(text: str, near: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_ratio(text)
    hint = f" (did you mean {near}?)" if near else ""
    assert str(caught.value) == f"poison_ratio {text!r} is not a number from 0 to 1{hint}"


@pytest.mark.parametrize(
    ("part", "allowed"),
    [
        ("lsp(budget=8)", "l2, such as l2:8"),
        ("ops(budget=2)", "l0, such as l0:2"),
        ("em(budget=8)", "linf, such as 8/255"),
        ("em(budget=300/255)", "linf, such as 8/255"),
        ("ar(budget=8.5)", "l2, such as l2:1.3 or linf, such as 8/255"),
    ],
)
def test_a_number_too_large_for_linf_names_the_norms_of_the_attack(part: str, allowed: str) -> None:
    with pytest.raises(SpecError) as caught:
        ATTACKS.make(part)
    says = f"names no norm, so that it is linf and up to 1 (255/255); allowed here: {allowed}"
    assert str(caught.value).endswith(says)


def test_numbers_of_numpy_are_those_of_python() -> None:
    plain = TrialSpec.parse(LONG)
    spec = plain.replace(seed=np.int64(3), poison_ratio=np.float32(0.5))
    assert (type(spec.seed), type(spec.poison_ratio)) == (int, float)
    assert spec == plain.replace(poison_ratio=0.5)
    assert TrialSpec.parse(str(spec)) == spec
    assert type(plain.replace(poison_ratio=1).poison_ratio) is float
    part = Part.of("jpeg", quality=np.int64(10), rate=np.float64(0.5))
    assert [type(value) for _, value in part.params] == [int, float]
    assert str(part) == "jpeg(quality=10, rate=0.5)"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"seed": 1.5}, r"seed is 1\.5, allowed are whole numbers from 0"),
        ({"seed": float("nan")}, "seed is nan, allowed are whole"),
        ({"seed": "0"}, "seed is '0', allowed are whole"),
        ({"seed": None}, "seed is None, allowed are whole"),
        ({"seed": True}, "seed is True, allowed are whole"),
        ({"poison_ratio": None}, "poison_ratio is None, allowed are 0 to 1"),
        ({"poison_ratio": "0.5"}, r"poison_ratio is '0\.5', allowed are 0 to 1"),
        ({"poison_ratio": True}, "poison_ratio is True, allowed are 0 to 1"),
        ({"poison_ratio": float("nan")}, "poison_ratio is nan, allowed are 0 to 1"),
        (
            {"defense": "none"},
            r"defense is 'none', allowed is a tuple of Parts: Part\.parse\('none",
        ),
        ({"defense": Part("none")}, r"defense is Part\(name='none'.*allowed is a tuple of Parts\Z"),
        ({"defense": ["none"]}, r"defense is \('none',\), allowed is a tuple of Parts\Z"),
        ({"defense": ()}, "a trial needs a defense"),
        (
            {"dataset": "cifar10"},
            r"dataset is 'cifar10', allowed is a Part: Part\.parse\('cifar10'",
        ),
    ],
)
def test_a_spec_made_in_python_takes_what_it_can_print(
    changes: dict[str, object], says: str
) -> None:
    with pytest.raises(SpecError, match=says):
        TrialSpec.parse(LONG).replace(**changes)


def test_a_chain_may_be_given_as_a_list() -> None:
    plain = TrialSpec.parse(LONG)
    assert plain.replace(defense=list(plain.defense)) == plain


@pytest.mark.parametrize("value", [[1], {"a": 1}, np.array([1, 2]), np.bool_(True)])
def test_a_parameter_that_no_spec_can_hold_is_named(value: Any) -> None:
    with pytest.raises(SpecError, match=r"quality is .*, allowed are a number, a text, True"):
        Part.of("jpeg", quality=value)


def test_none_of_python_is_the_word_none() -> None:
    assert str(Part.of("ar", min_response=None)) == "ar(min_response=none)"
    assert str(ATTACKS.make("aap(step=none)").part()) == "aap(step=none)"


def test_scalars_keep_their_kind() -> None:
    assert parse_scalar("true") is True
    assert parse_scalar("3") == 3
    assert isinstance(parse_scalar("3"), int)
    assert parse_scalar("1e-3") == 0.001


DEFAULT = Budget("linf", 8 / 255)


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("16/255", Budget("linf", 16 / 255)),
        ("2x", Budget("linf", 16 / 255)),
        ("l2:1.3", Budget("l2", 1.3)),
        ("l0:1", Budget("l0", 1)),
        ("0.5", Budget("linf", 0.5)),
    ],
)
def test_budgets_parse_and_print(text: str, budget: Budget) -> None:
    assert Budget.parse(text, DEFAULT) == budget
    assert Budget.parse(str(budget), DEFAULT) == budget


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0", "is zero"),
        ("0/255", "is zero"),
        ("-8/255", "not of the form"),
        ("300/255", "up to 1"),
        ("l7:1", "allowed are linf, l2, l0"),
        ("l0:1.5", "whole numbers"),
        ("8/0", "divides by zero"),
        ("l2:2x", "the default that it multiplies is linf"),
        (
            "99x",
            "3.10588, 99 times 8/255; allowed are values up to 1 (255/255), here 31.875x",
        ),
        ("lots", "not of the form"),
    ],
)
def test_bad_budgets_are_refused(text: str, says: str) -> None:
    with pytest.raises(SpecError) as caught:
        Budget.parse(text, DEFAULT)
    assert says in str(caught.value)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_budget_text_means_the_same_whatever_the_default(norm: str) -> None:
    default = Budget(norm, 1.0)
    for budget in (Budget("linf", 8 / 255), Budget("linf", 0.3), Budget("l2", 0.3)):
        assert Budget.parse(str(budget), default) == budget
    assert Budget.parse("0.5x", default) == Budget(norm, 0.5)


@pytest.mark.parametrize(
    ("text", "said"),
    [("0.064", "0.0640"), ("16/255", "16/255"), ("l2:1.3041323727577427", "l2 1.30"), ("2x", "2x")],
)
def test_budgets_are_told_whatever_a_spec_writes(text: str, said: str) -> None:
    """Of specs and of rows: there a budget is a text, also one that looks like a number."""
    ((_, written),) = Part.parse(f"dc(budget={text})").params
    assert budget_text(written) == budget_text(text) == said


def test_levels_are_whole_steps() -> None:
    assert Budget("linf", 8 / 255).levels == 8
    assert Budget("linf", 0.032).levels == 8
    assert Budget("linf", 0.05).levels == 12, "12.75 steps: the thirteenth is beyond the budget"
    assert Budget("linf", 0.03).levels == 7


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_least_budget_pays_for_one_value_changed_by_one_level(norm: str) -> None:
    clean = torch.full((1, 3, 4, 4), 100, dtype=torch.uint8)
    changed = clean.clone()
    changed[0, 0, 0, 0] += 1
    cost = float(size_of_change(clean, changed, norm))
    assert not Budget(norm, cost).changes_nothing
    assert Budget(norm, 0.99 * cost).changes_nothing
    assert int(size_of_change(clean, changed, "l0")) == 1, "and budgets of l0 are whole"
    assert not Budget("l0", 1).changes_nothing


@pytest.mark.parametrize("part", ["ar(budget=l2:0.003)", "lsp(budget=0.002x)"])
def test_an_l2_budget_below_one_level_of_one_value_is_refused(part: str) -> None:
    with pytest.raises(SpecError, match="less than one step of a pixel: nothing") as no:
        ATTACKS.make(part)
    assert str(no.value).startswith(f"{part}: budget l2:0.00")
    assert "; allowed from l2:1/255, and the attack 'clean'" in str(no.value)
    assert ATTACKS.make("ar(budget=l2:1/255)").limit == Budget("l2", 1 / 255)


@pytest.mark.parametrize("part", ["noise(budget=0.1x)", "em(budget=0.003)", "ntga(budget=1/256)"])
def test_a_budget_below_one_step_is_no_attack_and_refused(part: str) -> None:
    """The images stayed as they were, and stood in tables as poisoned."""
    with pytest.raises(SpecError, match="less than one step of a pixel: nothing") as no:
        ATTACKS.make(part)
    assert str(no.value).startswith(f"{part}: budget 0.003")
    assert str(no.value).endswith("allowed from 1/255, and the attack 'clean' for no perturbation")
    assert ATTACKS.make("noise(budget=1/255)").limit == Budget("linf", 1 / 255)


@pytest.mark.parametrize("name", ["resnet-18", "ResNet18", "resnet 18", "resnet81"])
def test_the_nearest_name_is_found_however_it_is_spelled(name: str) -> None:
    assert "did you mean 'resnet18'?" in unknown(
        "architecture", name, ["resnet18", "vgg11", "lenet"]
    )


def test_a_budget_of_numpy_is_one_of_python() -> None:
    made = Budget("l2", np.float32(0.5))  # type: ignore[arg-type]
    assert (made, type(made.value)) == (Budget("l2", 0.5), float)
    for value in (True, None, "8/255"):
        with pytest.raises(SpecError, match=rf"budget is {value!r}, allowed is a number"):
            Budget("linf", value)  # type: ignore[arg-type]
