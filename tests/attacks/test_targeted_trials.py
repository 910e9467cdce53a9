"""Targeted attacks through the trial: set-ups, controls, victims, extractors and their features."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from raygrid.architectures import ARCHITECTURES
from raygrid.attacks.common.surrogates import augmentation
from raygrid.core.errors import SpecError
from raygrid.core.images import Images, Poison
from raygrid.core.seeds import Stream
from raygrid.nn import augment
from raygrid.nn.augment import CropFlip
from raygrid.protocols import PROTOCOLS
from raygrid.storage.store import Bundle
from raygrid.trials.artifacts import Artifact, World, poison_of
from raygrid.trials.artifacts.features import features_for
from raygrid.trials.catalog import Catalog
from raygrid.trials.context import TrialContext
from raygrid.trials.resolve import resolve
from raygrid.trials.run import run_trial
from tests.attacks.test_targeted import CPU, context, scene, small

PROTOCOL = "toxic_quick(epochs=6, per_class=16, poisons=8, pretrain_epochs=3)"


def spec(
    attack: str = "clean", learner: str = "linear_probe", defense: str = "none", seed: int = 0
) -> str:
    return f"dots/{attack}/{defense}/small_cnn/{learner}/{PROTOCOL}/{seed}"


Fetch = Callable[[Artifact], Bundle]
TARGET = {"target", "target_hflip", "target_clbd", "target_htbd"}


def test_a_control_answers_the_same_questions(catalog: Catalog, fetch: Fetch) -> None:
    rows = {
        attack: run_trial(resolve(spec(attack), catalog), fetch, TrialContext())
        for attack in ("clean", "bullseye_polytope(steps=3, surrogate=small_cnn)", "patch_dirty")
    }
    assert [r.error for r in rows.values()] == [None] * 3
    clean, bullseye, dirty = (set(r.probes) for r in rows.values())
    assert clean == {"clean_test"} | TARGET
    assert bullseye == clean | {"poison_train"}
    assert dirty == bullseye | {"target_plain", "class_trigger", "all_trigger"}
    probes = rows["patch_dirty"].probes
    assert probes["target"] == probes["target_clbd"]
    assert probes["poison_train"]["n"] == 8
    assert probes["clean_test"]["n"] == 64
    assert probes["class_trigger"]["n"] == 16
    assert probes["all_trigger"]["n"] == 48
    assert all(math.isfinite(probes[name]["logodds"]) for name in TARGET)
    assert rows["clean"].probes["target"] != probes["target"], "one shows no trigger"
    again = run_trial(resolve(spec(), catalog), fetch, TrialContext())
    assert again.probes == rows["clean"].probes


def test_trials_without_a_target_keep_their_questions(catalog: Catalog, fetch: Fetch) -> None:
    result = run_trial(
        resolve("dots/lsp/none/small_cnn/supervised/brief/0", catalog), fetch, TrialContext()
    )
    assert set(result.probes) == {"clean_test"}


def test_availability_attacks_run_before_a_target_too(catalog: Catalog, fetch: Fetch) -> None:
    result = run_trial(resolve(spec("lsp"), catalog), fetch, TrialContext())
    assert result.error is None
    assert result.probes["poison_train"]["n"] == 64


@pytest.mark.parametrize(
    "learner", ["linear_probe", "linear_probe(cache=0)", "finetune", "supervised"]
)
def test_every_kind_of_victim_runs(learner: str, catalog: Catalog, fetch: Fetch) -> None:
    trial = resolve(spec("patch_dirty", learner, "standard"), catalog)
    assert trial.skip() is None
    result = run_trial(trial, fetch, TrialContext())
    assert result.error is None
    assert len(result.history) == 6


def test_set_ups_decide_poisons_and_further_victims_do_not(catalog: Catalog) -> None:
    attack = "bullseye_polytope(surrogate=small_cnn)"
    one, other = (resolve(spec(attack, seed=s), catalog) for s in (0, 1))
    assert one.poison.key != other.poison.key
    assert [s.key for s in one.poison.surrogates] == [s.key for s in other.poison.surrogates]
    again = resolve(spec(attack).replace("poisons=8", "poisons=8, rep=1"), catalog)
    assert again.poison.key == one.poison.key
    assert again.key != one.key
    assert again.streams()["init"] != one.streams()["init"]
    assert one.extractor is not None
    assert one.extractor.key == one.poison.surrogates[0].key, "the attack is white-box"
    gray = resolve(spec(attack).replace("poisons=8", "checkpoint=1, poisons=8"), catalog)
    assert gray.extractor is not None
    assert gray.extractor.key != one.extractor.key
    assert gray.poison.key == one.poison.key
    scratch = resolve(spec(attack, "supervised"), catalog)
    assert scratch.poison.key != one.poison.key, "another cell, another set-up"


def test_features_are_shared_and_recalled_where_nobody_changed_an_image(
    catalog: Catalog, fetch: Fetch
) -> None:
    trials = [
        resolve(spec(a, seed=s, defense="standard"), catalog)
        for a in ("clean", "patch_dirty")
        for s in (0, 1)
    ]
    assert len({t.features.key for t in trials if t.features}) == 1
    trial = trials[2]
    assert trial.features is not None
    bundle, world = fetch(trial.features), World.of(fetch(trial.data), trial.setup)
    poison = poison_of(fetch(trial.poison))
    train, mask = poison.overlay(world.train, 1.0, Stream("ratio"))
    found = features_for(bundle, world, train, CPU)
    assert torch.equal(found.known, ~mask)
    assert (found.train[:, mask] == 0).all()
    whole = features_for(bundle, world, world.train, CPU)
    assert bool(whole.known[~mask].all()), "only a base may be new"
    assert torch.equal(whole.train[:, ~mask], found.train[:, ~mask])


def test_frozen_extractors_stay_bit_for_bit(catalog: Catalog, fetch: Fetch) -> None:
    from raygrid.trials.run import pretrained, task_of

    for cache_ in (0, 2):
        trial = resolve(spec("patch_dirty", f"linear_probe(cache={cache_})", "standard"), catalog)
        world = World.of(fetch(trial.data), trial.setup)
        parts = pretrained(trial, fetch, world, world.train, CPU)
        task = replace(task_of(trial, world.train, world.train, CPU), **parts)
        before = {k: t.clone() for k, t in task.extractor.state_dict().items()}  # type: ignore[union-attr]
        session = trial.learner.start(task)
        for epoch in range(3):
            session.epoch(epoch)
            session.classifier().train()
        for name, value in task.extractor.state_dict().items():  # type: ignore[union-attr]
            assert torch.equal(value, before[name])


def test_kept_features_give_the_victim_that_new_ones_give(catalog: Catalog, fetch: Fetch) -> None:
    """The store's features against those computed by the trial itself, one augmented pass each."""
    from raygrid.trials.run import pretrained, task_of

    trial = resolve(spec("patch_dirty", "linear_probe(cache=2)", "standard"), catalog)
    world = World.of(fetch(trial.data), trial.setup)
    train, _ = poison_of(fetch(trial.poison)).overlay(world.train, 1.0, Stream("ratio"))
    parts = pretrained(trial, fetch, world, train, CPU)
    task = replace(task_of(trial, train, world.train, CPU), **parts)
    alone = replace(parts["kept"], known=torch.zeros(len(train), dtype=torch.bool), tests={})
    ours = trial.learner.start(task)
    theirs = trial.learner.start(replace(task, kept=alone))
    for one, other in zip(ours.features, theirs.features, strict=True):  # type: ignore[attr-defined]
        assert torch.allclose(one, other, atol=1e-5)
    assert ours.epoch(0)["train_loss"] == pytest.approx(theirs.epoch(0)["train_loss"], rel=1e-4)
    assert world.scene is not None
    groups = world.scene.groups(world.test, world.scene.triggers["clbd"])
    for images in (world.test, *groups.values()):
        assert images.fingerprint in parts["kept"].tests
        shown = [trial.learner.shown(s, images, trial.defense.view)[0] for s in (ours, theirs)]
        one, other = (s.floats(slice(None)) for s in shown)
        assert torch.allclose(one, other, atol=1e-5)


def test_features_are_kept_under_the_augmentation_of_the_protocol(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trial = resolve(spec(defense="standard"), None)
    plain = resolve(spec(defense="none"), None)
    own, bare = trial.features, plain.features
    assert own is not None
    assert bare is not None
    assert (own.augmentation, bare.augmentation) == (trial.dataset.augmentation, "none")
    elsewhere = {trial.dataset.id: "crop_flip"}
    monkeypatch.setattr(type(trial.protocol), "augmentations", elsewhere)
    other = resolve(spec(defense="standard"), None).features
    assert other is not None
    assert other.augmentation == "crop_flip" != own.augmentation
    assert len({own.key, bare.key, other.key}) == 3
    assert plain.features == bare


def test_kept_features_refuse_what_acts_on_images() -> None:
    trial = resolve(spec(learner="linear_probe(cache=2)", defense="cutout"), None)
    assert "use cache=0" in str(trial.skip())
    free = resolve(spec(learner="linear_probe(cache=0)", defense="cutout"), None)
    assert free.skip() is None


def test_the_rates_are_those_of_the_benchmark() -> None:
    protocol = PROTOCOLS.make("just_how_toxic")
    head = protocol.recipe("linear_probe", "cifar10", 32)
    assert [head.rate(e) for e in (0, 29, 30, 39)] == pytest.approx([0.01, 0.01, 0.001, 0.001])
    whole = protocol.recipe("supervised", "cifar10", 32)
    rates = [whole.rate(e) for e in (99, 100, 149, 150)]
    assert rates == pytest.approx([0.1, 0.01, 0.01, 0.001])
    assert (head.epochs, whole.epochs, head.weight_decay) == (40, 200, 2e-4)
    cifar, tiny = (protocol.pretraining(d) for d in ("cifar100", "tinyimagenet_first"))
    assert cifar is not None
    assert tiny is not None
    assert (cifar.epochs, cifar.milestones) == (400, (200, 300, 350))
    assert (tiny.epochs, tiny.milestones) == (200, (100, 150))


def test_the_extractor_has_the_optimizer_that_is_asked_for() -> None:
    """What the paper finds is about pre-training; its code decays by 2e-4 in both."""
    protocol = PROTOCOLS.make("just_how_toxic(optimizer=adam)")
    before, head = protocol.pretraining("cifar10"), protocol.recipe("linear_probe", "cifar10", 32)
    assert before is not None
    assert (before.optimizer, before.lr, before.weight_decay) == ("adam", 1e-3, 2e-4)
    assert (head.optimizer, head.lr, head.weight_decay) == ("adam", 1e-3, 2e-4)
    faster = PROTOCOLS.make("just_how_toxic(lr=0.1, optimizer=adam)")
    assert faster.recipe("linear_probe", "cifar10", 32).lr == 0.1
    assert faster.pretraining("cifar10") == before, "a rate of the spec is the victim's"
    usual = PROTOCOLS.make("just_how_toxic").pretraining("cifar10")
    assert usual is not None
    assert (usual.optimizer, usual.lr) == ("sgd", 0.1)


@pytest.mark.parametrize(
    ("dataset", "learner", "poisons", "per_class", "patch", "file"),
    [
        ("cifar10", "linear_probe", 25, 250, 5, "cifar10_transfer_learning"),
        ("cifar10", "supervised", 500, None, 5, "cifar10_from_scratch"),
        ("tinyimagenet_last", "linear_probe", 250, None, 8, "tinyimagenet_transfer_learning"),
        ("tinyimagenet", "supervised", 250, None, 8, "tinyimagenet_from_scratch"),
    ],
)
def test_the_four_cells(
    dataset: str, learner: str, poisons: int, per_class: int | None, patch: int, file: str
) -> None:
    protocol = PROTOCOLS.make("just_how_toxic(setups=/somewhere)")
    rule = protocol.setup_rule(dataset, learner == "linear_probe")
    assert rule is not None
    assert (rule.poisons, rule.per_class, rule.patch, rule.file) == (
        poisons,
        per_class,
        patch,
        file,
    )
    trial = resolve(f"{dataset}/clean/standard/vgg16/{learner}/just_how_toxic/0", None)
    assert trial.skip() is None
    assert (trial.extractor is not None) == (learner == "linear_probe")


@pytest.mark.parametrize("dataset", ["cifar10", "tinyimagenet_last", "tinyimagenet"])
def test_crops_have_four_pixels_of_padding_at_every_size(dataset: str) -> None:
    """poisoning-benchmark@97a67ae, learning_module.py: victims, extractors, CLBD's surrogate."""
    learner = "supervised" if dataset == "tinyimagenet" else "linear_probe"
    text = f"{dataset}/clbd(surrogate=vgg11)/standard/vgg11/{learner}/just_how_toxic/0"
    trial = resolve(text, None)
    victim = augment.standard(trial.augmentation, trial.dataset.image_size)
    assert isinstance(victim, CropFlip)
    assert (victim.padding, victim.flip) == (4, True)
    recipes = list(trial.attack.needs())
    if trial.extractor is not None:
        recipes.append(trial.extractor.recipe)
        assert trial.extractor.data.dataset.image_size == trial.dataset.image_size
    side = trial.dataset.image_size
    ramp = torch.arange(1.0, side + 1).expand(512, 1, side, side)
    for recipe in recipes:
        crop = augmentation(recipe.augmentation, nn.Identity())
        moved = crop(ramp, torch.Generator().manual_seed(0))
        empty = (moved == 0).sum(3).amax((1, 2))  # columns of padding, on one side or the other
        rows = (moved == 0).all(3).sum((1, 2))
        assert rows.max() == 4
        assert set(empty[rows == 0].tolist()) == {0, 1, 2, 3, 4}


def test_the_size_axis_keeps_the_share() -> None:
    for count in (5, 10, 50, 500):
        protocol = PROTOCOLS.make(f"just_how_toxic(poisons={count}, setups=/somewhere)")
        rule = protocol.setup_rule("cifar10", True)
        assert rule is not None
        assert (rule.per_class, rule.file) == (10 * count, f"scaling_cifar10_{count}")
    with pytest.raises(SpecError, match="no official set-ups"):
        protocol.setup_rule("photo_digits", True)


@pytest.mark.parametrize(
    ("name", "count"),
    [("alexnet_fc", 1_756_426), ("alexnet_htbd", 20_126_538), ("resnet32_narrow", 464_154)],
)
def test_parameter_counts(name: str, count: int) -> None:
    network = ARCHITECTURES.make(name).build(10, 32, 0)
    assert sum(p.numel() for p in network.parameters()) == count
    assert network.eval()(torch.rand(2, 3, 32, 32)).shape == (2, 10)


def test_a_poison_with_its_trigger_survives_the_store() -> None:
    from raygrid.trials.artifacts import poison_bundle

    poison = small("patch_dirty").poison(scene().train, context())
    again = poison_of(poison_bundle(poison, {}))
    assert isinstance(again, Poison)
    assert again.targets == poison.targets
    assert again.trigger is not None
    assert poison.trigger is not None
    assert torch.equal(again.trigger.pattern, poison.trigger.pattern)
    assert (again.trigger.left, again.trigger.top) == (poison.trigger.left, poison.trigger.top)
    assert isinstance(scene().train, Images)
