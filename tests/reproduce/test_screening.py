"""Printed trials with the fast victim."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from raygrid.attacks import ATTACKS
from raygrid.attacks.base import AttackContext
from raygrid.attacks.common.surrogate_training import train_surrogate
from raygrid.cli.plan import estimates
from raygrid.cli.reproduce import shorter
from raygrid.core.images import Images
from raygrid.core.seeds import Stream
from raygrid.core.spec import Part, TrialSpec
from raygrid.defenses import DEFENSES
from raygrid.engine.grid import plan
from raygrid.literature.reference import specs_of
from raygrid.nn.networks import freeze
from raygrid.reproduce.papers import PAPERS
from raygrid.reproduce.scales import lacking, scaled
from raygrid.reproduce.screening import (
    MOST_POISON_HOURS,
    SCREEN_NETWORK,
    SHORTER_ATTACKS,
    SMALLER_DEFENSES,
    hours,
    screened_attack,
    screened_defense,
)
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
        (
            ("pil", "grayscale+eclipse", "resnet18"),
            ("pil", "grayscale+eclipse(size=tiny, stride=4, updates=4000)", "small_airbench"),
        ),
        (
            ("ops", "avatar(steps=100)", "resnet18"),
            ("ops", "avatar(size=tiny, steps=100, stride=4, updates=4000)", "small_airbench"),
        ),
    ],
)
def test_a_printed_trial_keeps_data_budget_and_what_the_table_varies(
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
        "attack dc, of which a poison takes 59.2 days of a core, at scale screen",
    ]


def test_a_poison_of_linear_networks_is_the_printed_one() -> None:
    """They take seconds; with the fast network in their place it would be another attack."""
    assert screened_attack(Part("pil")) == Part("pil")
    assert screened_attack(Part.parse("pil(surrogate=linear)")) == Part.parse(
        "pil(surrogate=linear)"
    )
    made = dict(screened_attack(Part.parse("pil(surrogate=resnet18)")).params)
    assert made["surrogate"] == SCREEN_NETWORK
    assert not [
        reason for reason in paper_table("pil", "main", "screen").missing if "pil" in reason
    ]


def test_every_attack_but_these_has_a_setting_of_about_an_hour() -> None:
    """`dc`, `gue`: a game of two networks; `ntga`: no length; the D-VAE's: EM as printed."""
    known = [name for name in ATTACKS if not ATTACKS[name].on_target]
    longer = {name for name in known if hours(screened_attack(Part(name))) > MOST_POISON_HOURS}
    assert longer == {"dc", "gue", "ntga", "dvae_grow", "dvae_recon"}
    assert hours(screened_attack(Part.parse("dvae_grow(base=lsp)"))) < MOST_POISON_HOURS
    assert 50 < hours(Part("tap")) < 70, "as printed it takes days"


@pytest.mark.parametrize("text", SHORTER_ATTACKS)
def test_settings_are_of_attacks_that_ask_a_network(text: str) -> None:
    part = Part.parse(text)
    asking = part.with_params(**{"tue": {"framework": "moco"}}.get(part.name, {}))
    made = screened_attack(asking)
    assert set(Part.of(part.name, **SHORTER_ATTACKS[text]).params) <= set(made.params)
    takes = {field.name for field in dataclasses.fields(ATTACKS[part.name])}
    assert (dict(made.params).get("surrogate") == SCREEN_NETWORK) == ("surrogate" in takes)
    assert set(SHORTER_ATTACKS[text]) <= ATTACKS[part.name].effort
    assert ATTACKS.make(made).passes(50_000) <= ATTACKS.make(asking).passes(50_000)


@pytest.mark.parametrize("name", ATTACKS)
def test_the_effort_of_an_attack_is_of_its_parameters_and_names_its_network(name: str) -> None:
    takes = {field.name for field in dataclasses.fields(ATTACKS[name])}
    assert ATTACKS[name].effort <= takes
    assert ("surrogate" in ATTACKS[name].effort) == ("surrogate" in takes)


@pytest.mark.parametrize("name", SMALLER_DEFENSES)
def test_settings_of_defenses_make_the_same_one_with_less_effort(name: str) -> None:
    kind = DEFENSES[name]
    assert set(SMALLER_DEFENSES[name]) <= kind.effort
    assert kind.effort <= {field.name for field in dataclasses.fields(kind)}
    small = DEFENSES.make(screened_defense(Part(name)))
    assert small.purify_cost_of(50_000, 32) < DEFENSES.make(name).purify_cost_of(50_000, 32) / 5


def test_a_noise_predictor_of_the_users_stays() -> None:
    given = Part.of("avatar", checkpoint="google/ddpm-cifar10-32", diffusion_data="clean_train")
    assert screened_defense(given) == given
    assert screened_defense(Part("standard")) == Part("standard")


TABLES = [(name, number) for name, paper in PAPERS.items() for number in paper.tables]
LONGEST = [("dvae", "8"), ("dvae", "2"), ("apbench", "3"), ("dune", "main")]


def core_hours(paper: str, number: str) -> float:
    """What the plan of a whole table says at scale screen."""
    return estimates(plan(paper_table(paper, number, "screen").specs, None))["cpu_core_hours"]


@pytest.mark.parametrize(("paper", "number"), LONGEST)
def test_the_longest_tables_take_less_than_two_days_of_a_core(paper: str, number: str) -> None:
    """With the purifiers as printed they take 8 to 48 days."""
    assert 5 < core_hours(paper, number) < 36


@pytest.mark.slow
def test_every_table_takes_less_than_two_days_of_a_core() -> None:
    taken = {place: core_hours(*place) for place in TABLES}
    assert max(taken.values()) < 36, taken
    assert max(taken, key=lambda place: taken[place]) == LONGEST[0]
    assert sum(hours > 0 for hours in taken.values()) > 40


def test_stand_ins_for_attacks_and_defenses_are_named() -> None:
    table = paper_table("dune", "main", "screen")
    assert "eclipse(size=tiny, stride=4, updates=4000) for eclipse" in table.substitutes
    assert not [said for said in table.substitutes if said.startswith(("cuda", "standard", "at("))]
    (said,) = shorter(table, "screen")
    assert said.startswith("Stand-ins: dune(checkpoints=3, step=1/255, steps=15, ")
    assert said.count(" for ") == len(table.substitutes) == 5
    assert shorter(table, "small") == shorter(paper_table("cuda", "2", "screen"), "screen") == []


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({Part.parse(text).name for text in SHORTER_ATTACKS}))
def test_the_fast_network_can_be_asked(name: str, images: Images) -> None:
    """A poison of the toy world is made with it, within the budget and not clean."""
    takes = "surrogate" in ATTACKS[name].__dataclass_fields__
    attack = ATTACKS.tiny(Part.of(name, **({"surrogate": SCREEN_NETWORK} if takes else {})))
    networks = {}
    for recipe in attack.needs():
        stream = Stream("surrogate", ("toy", 0))
        networks[recipe.name] = freeze(train_surrogate(recipe, images, stream, torch.device("cpu")))
    context = AttackContext(Stream("poison", ("toy", name, 0)), surrogates=networks)
    changed = attack.poison(images, context).pixels.short() - images.pixels.short()
    assert attack.limit is not None
    assert 0 < int(changed.abs().max()) <= attack.limit_at(images.shape[-1]).levels


def test_what_a_table_varies_stays_as_printed() -> None:
    """Even where it takes longer then, which is said with what it takes."""
    spec = PRINTED.format("mifgsm(steps=250)", "none", "resnet18")
    assert lacking(TrialSpec.parse(spec), "screen") == [
        "attack mifgsm(steps=250), of which a poison takes 2.4 hours of a core, at scale screen"
    ]
    made = screened_attack(Part.parse("pgd(steps=10)"))
    assert str(made) == "pgd(steps=10, surrogate=small_airbench, surrogate_epochs=10)"


def test_the_table_of_apbench_has_its_cells() -> None:
    """All but the two whose poisons take longer, and two names that one victim stands for."""
    table = paper_table("apbench", "3", "screen")
    assert set(table.missing) == {
        "attack dc, of which a poison takes 59.2 days of a core, at scale screen",
        "attack ntga, of which a poison takes 28.4 hours of a core, at scale screen",
    }
    kept = [
        spec for spec in specs_of("apbench", "3") if "/dc/" not in spec and "/ntga/" not in spec
    ]
    assert len(table.specs) == len(kept)
    assert all("/small_airbench/supervised/fast(rung=minutes)/" in spec for spec in table.specs)
