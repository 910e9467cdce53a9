"""Printed trials with the fast victim."""

from __future__ import annotations

import dataclasses

import pytest

from raygrid.attacks import ATTACKS
from raygrid.core.spec import Part, TrialSpec
from raygrid.literature.reference import specs_of
from raygrid.reproduce.scales import lacking, scaled
from raygrid.reproduce.screening import SHORTER, screened_attack
from raygrid.reproduce.tables import paper_table

PRINTED = "cifar10/{}/{}/{}/supervised/apbench/0"
SCREENED = "cifar10/{}/{}/{}/supervised/fast(rung=minutes)/0"


@pytest.mark.parametrize(
    ("printed", "screened"),
    [
        (("lsp", "jpeg", "resnet18"), ("lsp", "jpeg", "small_airbench")),
        (("ar@0.4", "standard", "resnet50"), ("ar@0.4", "standard", "small_resnet")),
        (
            ("em_apb", "none", "resnet18"),
            ("em_apb(max_rounds=10, surrogate=small_airbench)", "none", "small_airbench"),
        ),
        (
            ("tap(budget=16/255)", "standard", "mobilenetv2"),
            (
                "tap(budget=16/255, steps=60, surrogate=small_airbench, surrogate_epochs=10)",
                "standard",
                "small_mobilenet",
            ),
        ),
    ],
)
def test_a_printed_trial_keeps_data_budget_and_defense(
    printed: tuple[str, ...], screened: tuple[str, ...]
) -> None:
    spec = TrialSpec.parse(PRINTED.format(*printed))
    assert lacking(spec, "screen") == []
    assert str(scaled(spec, "screen")) == SCREENED.format(*screened)


def test_what_the_fast_victim_cannot_stand_for_is_said() -> None:
    spec = TrialSpec.parse(PRINTED.format("dc", "standard", "resnet18"))
    spec = spec.replace(learner=Part("simclr"), dataset=Part("imagenet100"))
    assert lacking(spec, "screen") == [
        "learner simclr at scale screen",
        "dataset imagenet100 at scale screen",
        "attack dc in an hour of a core at scale screen",
    ]


def test_settings_are_of_attacks_that_ask_a_network() -> None:
    for text, shorter in SHORTER.items():
        part = Part.parse(text)
        fields = {field.name for field in dataclasses.fields(ATTACKS[part.name])}
        assert {*shorter, "surrogate"} <= fields
        made = screened_attack(part)
        assert made is not None
        assert ATTACKS.make(made).passes(1) <= ATTACKS.make(part).passes(1)


def test_what_a_table_varies_stays_as_printed() -> None:
    made = screened_attack(Part.parse("pgd(steps=10)"))
    assert str(made) == "pgd(steps=10, surrogate=small_airbench, surrogate_epochs=10)"


def test_the_table_of_apbench_has_its_cells() -> None:
    """All but the two whose poisons take longer, and two names that one victim stands for."""
    table = paper_table("apbench", "3", "screen")
    assert set(table.missing) == {
        "attack dc in an hour of a core at scale screen",
        "attack ntga in an hour of a core at scale screen",
    }
    kept = [
        spec for spec in specs_of("apbench", "3") if "/dc/" not in spec and "/ntga/" not in spec
    ]
    assert len(table.specs) == len(kept)
    assert all("/small_airbench/supervised/fast(rung=minutes)/" in spec for spec in table.specs)
