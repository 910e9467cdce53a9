"""The baselines of the targeted benchmark with one thing changed, as section 4 describes it."""

from __future__ import annotations

from typing import Any

import pytest

from raygrid.attacks import ATTACKS
from raygrid.core.spec import Part, TrialSpec
from raygrid.engine.grid import plan
from raygrid.literature.reference import specs_of
from raygrid.literature.toxic import BASELINES
from raygrid.reproduce.ablations import ABLATIONS, ablation
from raygrid.reproduce.tables import Files, Only, paper_table
from raygrid.trials.resolve import resolve

MOVED = {
    "augmentation": {"defense"},
    "architecture": {"architecture", "attack"},
    "black_box": {"architecture"},
    "epsilon": {"attack"},
    "disjoint": {"architecture", "attack", "learner", "protocol"},
}
"""By axis what it changes of a setting, where that is not the protocol alone."""


def parts_beside(base: TrialSpec, spec: TrialSpec) -> set[str]:
    """What a trial changes of another."""
    parts = ("dataset", "attack", "defense", "architecture", "learner", "protocol")
    return {part for part in parts if getattr(spec, part) != getattr(base, part)}


def changed(axis: str) -> dict[str, list[TrialSpec]]:
    """By attack the settings of an axis that are not its baseline."""
    bases = [TrialSpec.parse(text) for text in BASELINES.values()]
    found: dict[str, list[TrialSpec]] = {base.attack.name: [] for base in bases}
    for spec in ablation(axis):
        found[spec.attack.name] += [spec] if spec not in bases else []
    return found


@pytest.mark.parametrize("axis", ABLATIONS["just_how_toxic"])
def test_an_ablation_changes_one_thing_of_the_baselines(axis: str) -> None:
    """Each setting of table 2, and the same with another value in one place."""
    assert {TrialSpec.parse(text) for text in BASELINES.values()} <= set(ablation(axis))
    for text in BASELINES.values():
        base = TrialSpec.parse(text)
        for spec in changed(axis)[base.attack.name]:
            moved = parts_beside(base, spec)
            assert moved <= MOVED.get(axis, {"protocol"}), f"{spec} changes {moved} of {base}"


@pytest.mark.parametrize("axis", ABLATIONS["just_how_toxic"])
def test_no_trial_of_an_ablation_is_its_baseline_by_another_name(axis: str) -> None:
    """SGD is what two baselines have, five and five hundred poisons what one each has."""

    def decided(spec: TrialSpec) -> dict[str, object]:
        trial = resolve(spec, None)
        whole = trial.resolved()
        setup = {**whole["setup"], "per_class": whole["setup"]["per_class"] or 5000}
        return {**whole, "protocol": None, "setup": setup, "pretraining": trial.pretraining}

    for text in BASELINES.values():
        base = TrialSpec.parse(text)
        same = [s for s in changed(axis)[base.attack.name] if decided(s) == decided(base)]
        assert {resolve(spec, None).key for spec in same} <= {resolve(base, None).key}


def test_the_attacker_keeps_its_network_where_the_victim_starts_afresh() -> None:
    """CLBD is crafted on an adversarially trained ResNet-18, whatever the victim is."""
    robust = {ATTACKS.make(s.attack).part() for s in changed("architecture")["clbd"]}
    assert robust == {ATTACKS.make(TrialSpec.parse(BASELINES["clbd"]).attack).part()}
    for spec in changed("architecture")["htbd"]:
        assert dict(spec.attack.params)["surrogate"] == spec.architecture.name


def test_black_box_victims_are_others_than_the_network_that_poisons_are_crafted_on() -> None:
    counts = {attack: len(specs) for attack, specs in changed("black_box").items()}
    assert counts == {"feature_collision": 5, "convex_polytope": 5, "clbd": 0, "htbd": 5}
    for spec in (each for specs in changed("black_box").values() for each in specs):
        made: Any = ATTACKS.make(spec.attack)
        assert made.surrogate != spec.architecture.name


def test_a_budget_for_feature_collision_is_that_of_the_benchmark() -> None:
    (benchmark,) = {
        TrialSpec.parse(text).attack
        for text in specs_of("just_how_toxic", "3")
        if text.startswith("cifar10/feature_collision")
    }
    bounded: list[Any] = [ATTACKS.make(s.attack) for s in changed("epsilon")["feature_collision"]]
    assert {each.variant for each in bounded} == {dict(benchmark.params)["variant"]} == {"released"}
    assert [round(each.budget.value * 255, 1) for each in bounded] == [8, 16, 25.5]


def test_extractors_of_other_classes_are_resnets_for_all_four_attacks() -> None:
    """Section 4: pre-trained on CIFAR-100, fine-tuned on CIFAR-10, also against CLBD."""
    for attack, specs in changed("disjoint").items():
        (spec,) = specs
        trial = resolve(spec, None)
        made: Any = trial.attack
        assert (trial.architecture.id, made.surrogate) == ("resnet18", "resnet18")
        assert trial.learner.pretrained, attack
        assert trial.pretraining is not None
        assert trial.pretraining.data.dataset.id == "cifar100"
        assert trial.skip() is None
        usual = resolve(BASELINES[attack], None)
        assert trial.setup is not None
        assert usual.setup is not None
        assert trial.setup.rule.poisons == usual.setup.rule.poisons


def test_targeted_attacks_come_with_their_clean_control_and_official_set_ups() -> None:
    only, files = Only(attacks=["clbd"]), Files(setups="/official")
    wanted = paper_table("just_how_toxic", "patch", "paper", only, (0, 1), files)
    specs = [TrialSpec.parse(text) for text in wanted.specs]
    attacks = {spec.attack.name for spec in specs}
    assert attacks == {"clbd", "clean"}
    places = {
        name: {str(s.replace(attack=Part("x"))) for s in specs if s.attack.name == name}
        for name in attacks
    }
    assert places["clbd"] == places["clean"], "every set-up and setting has both"
    assert all(dict(spec.protocol.params)["setups"] == "/official" for spec in specs)
    assert {spec.seed for spec in specs} == {0, 1}
    assert {dict(spec.protocol.params).get("patch") for spec in specs} == {3, 5, 8}


@pytest.mark.parametrize("axis", ABLATIONS["just_how_toxic"])
def test_every_ablation_can_be_planned_at_small_and_at_full_scale(axis: str) -> None:
    for scale in ("smoke", "paper"):
        wanted = paper_table("just_how_toxic", axis, scale)
        planned = plan(wanted.specs, None)
        assert wanted.missing == ()
        assert planned.trials
        assert planned.skips == []
