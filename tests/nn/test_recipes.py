"""Supervised protocols against the settings that their sources print."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch

from raygrid.core.errors import SpecError
from raygrid.datasets import DATASETS
from raygrid.learners.common.two_views import TwoViews
from raygrid.nn import augment
from raygrid.nn.augment import Views
from raygrid.nn.recipes import Recipe
from raygrid.protocols import PROTOCOLS
from raygrid.trials.resolve import resolve
from raygrid.trials.run import task_of
from tests.conftest import toy


def sgd(epochs: int, schedule: str, **other: object) -> Recipe:
    """A supervised recipe with what all sources have in common: nothing is left to defaults."""
    same: dict[str, object] = {
        **{"batch_size": 128, "lr": 0.1, "optimizer": "sgd", "momentum": 0.9, "nesterov": False},
        **{"weight_decay": 5e-4, "milestones": (), "gamma": 0.1, "lr_end": 0.0},
        **{"warmup_epochs": 0, "grad_clip": None, "shuffle": True, "drop_last": False},
        **{"normalize": False},
    }
    return Recipe(epochs=epochs, schedule=schedule, **(same | other))  # type: ignore[arg-type]


HALVED = {"schedule": "step", "gamma": 0.5, "milestones": (100, 200, 300), "drop_last": True}
ADAM = {"optimizer": "adam", "lr": 1e-4, "weight_decay": 0.0, "schedule": "cosine"}
APBENCH = sgd(200, **HALVED)  # type: ignore[arg-type]
REPO = APBENCH.with_(batch_size=256, shuffle=False)
DVAE = sgd(60, "cosine", grad_clip=5.0, drop_last=True)
DVAE_AT = DVAE.with_(epochs=100, schedule="step", milestones=(75, 90))
DVAE_UE = DVAE.with_(epochs=200, schedule="constant", lr=0.01)
TP = sgd(100, "step", milestones=(60, 75, 90))
ISS = sgd(60, "cosine")
AVATAR = sgd(120, "step", milestones=(80, 100), grad_clip=5.0)

# protocol/dataset/defense/architecture -> what stands in the source; "*": what is no row itself
PRINTED = {
    "apbench/cifar10/*/resnet18": APBENCH,
    "apbench/cifar100/*/resnet18": APBENCH,
    "apbench/svhn/*/resnet18": APBENCH.with_(epochs=100),
    "apbench/imagenet100/*/resnet18": APBENCH.with_(batch_size=256, schedule="cosine"),
    "apbench/cifar10/at/resnet18": APBENCH,
    "apbench/cifar10/ueraser_max/resnet18": APBENCH.with_(epochs=300),
    "apbench/cifar10/*/vit_small": APBENCH.with_(**ADAM | {"schedule": "step"}),
    "apbench_repo/cifar10/*/resnet18": REPO,
    "apbench_repo/cifar100/*/resnet18": REPO,
    "apbench_repo/svhn/*/resnet18": REPO,
    "apbench_repo/imagenet100/*/resnet18": REPO.with_(schedule="cosine", shuffle=True),
    "apbench_repo/cifar10/at/resnet18": REPO,
    "apbench_repo/cifar10/ueraser_max/resnet18": REPO,
    "learned_faster/cifar10/*/resnet18": sgd(100, "step", milestones=(50,)),
    "dvae/cifar10/*/resnet18": DVAE,
    "dvae/cifar100/*/resnet18": DVAE.with_(epochs=100),
    "dvae/imagenet100/*/resnet18": DVAE.with_(epochs=100),
    "dvae/cifar10/*/resnet50": DVAE,
    "dvae/cifar10/*/densenet121": DVAE.with_(batch_size=96),
    "dvae/imagenet100/*/resnet50": DVAE.with_(epochs=100, weight_decay=5e-5),
    "dvae/imagenet100/*/densenet121": DVAE.with_(epochs=100, weight_decay=5e-5, batch_size=96),
    "dvae/cifar10/at/resnet18": DVAE_AT,
    "dvae/imagenet100/at/resnet18": DVAE_AT,
    "dvae/cifar10/ueraser_max/resnet18": DVAE_UE,
    "dvae/cifar10/ueraser_max/densenet121": DVAE_UE.with_(batch_size=96),
    "dvae/cifar100/ueraser_max/resnet18": DVAE_UE.with_(epochs=300),
    "dvae/imagenet100/ueraser_max/resnet18": DVAE_UE.with_(epochs=300),
    "tp/cifar10/*/resnet18": TP,
    "tp/cifar100/*/resnet18": TP,
    "tp/tinyimagenet/*/resnet18": TP,
    "tp/miniimagenet/*/resnet18": TP,
    "tp/cifar10/at/resnet18": TP,
    "tp/cifar10/ueraser_max/resnet18": TP,
    "iss/cifar10/*/resnet18": ISS,
    "iss/cifar10/at/resnet18": ISS.with_(epochs=100),
    "iss/cifar10/*/vit_small": ISS.with_(epochs=200, **ADAM),
    "avatar/cifar10/*/resnet18": AVATAR,
    "avatar/cifar100/*/resnet18": AVATAR,
    "avatar/svhn/*/resnet18": AVATAR,
    "avatar/imagenet100/*/resnet18": AVATAR,
}
USUAL = ("none", "standard", "cutout", "jpeg", "ueraser_lite")


@pytest.mark.parametrize("cell", PRINTED)
def test_recipes_are_the_printed_ones(cell: str) -> None:
    protocol, dataset, defense, architecture = cell.split("/")
    side = DATASETS[dataset].image_size
    for name in USUAL if defense == "*" else (defense,):
        chain = ("grayscale", name)
        made = PROTOCOLS.make(protocol).recipe("supervised", dataset, side, chain, architecture)
        assert made == PRINTED[cell], name


@pytest.mark.parametrize(
    ("protocol", "rates"),
    [
        ("apbench", {0: 0.1, 99: 0.1, 100: 0.05, 199: 0.05}),
        ("learned_faster", {49: 0.1, 50: 0.01}),
        ("tp", {59: 0.1, 60: 0.01, 75: 1e-3, 90: 1e-4}),
        ("avatar", {79: 0.1, 80: 0.01, 100: 1e-3}),
        ("dvae", {0: 0.1, 30: 0.05, 60: 0.0}),
        ("iss", {0: 0.1, 30: 0.05, 60: 0.0}),
    ],
)
def test_rates_fall_when_they_should(protocol: str, rates: dict[int, float]) -> None:
    made: Recipe = PROTOCOLS.make(protocol).recipe("supervised", "cifar10", 32)
    for epoch, rate in rates.items():
        assert made.rate(epoch) == pytest.approx(rate, abs=1e-12)


@pytest.mark.parametrize(
    ("protocol", "rates"),
    [
        ("tp(epochs=20)", {11: 0.1, 12: 0.01, 15: 1e-3, 18: 1e-4}),
        ("learned_faster(epochs=1)", {0: 0.1}),
        ("dvae(epochs=30)", {0: 0.1, 15: 0.05, 30: 0.0}),
    ],
)
def test_a_shorter_training_keeps_the_shape_of_its_schedule(
    protocol: str, rates: dict[int, float]
) -> None:
    test_rates_fall_when_they_should(protocol, rates)


@pytest.mark.parametrize("epochs", [1, 10, 12, 30, 200, 1000])
def test_a_shorter_contrastive_training_still_reaches_its_rate(epochs: int) -> None:
    """A warm-up of fixed length would eat a short training and end far down the cosine."""
    made = PROTOCOLS.make(f"tp(epochs={epochs})").recipe("simclr", "cifar10", 32)
    rates = [made.rate(epoch) for epoch in range(epochs)]
    top = rates.index(max(rates))
    assert max(rates) == pytest.approx(0.5, rel=0.02)
    assert top <= 0.02 * epochs
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert made.warmup_epochs == epochs // 100


FIVE = ("supcl", "simclr", "byol", "moco", "simsiam")
# protocol -> learner -> the rate of its pre-training at 32 pixels, and at 64 where that is another
RATES: dict[str, dict[str, tuple[float, float | None]]] = {
    "apbench": {"simclr": (0.5, None), "moco": (0.3, None)},
    "tp": {
        **{"supcl": (0.5, 0.15), "simclr": (0.5, 0.15), "byol": (1.0, 0.3)},
        **{"moco": (0.3, 0.3), "simsiam": (0.5, 0.1)},
    },
}


@pytest.mark.parametrize(
    ("name", "epochs", "warmup", "normalize"),
    [("apbench", 500, 0, False), ("tp", 1000, 10, True)],
)
def test_pretraining_is_the_printed_one(
    name: str, epochs: int, warmup: int, normalize: bool
) -> None:
    protocol = PROTOCOLS.make(name)
    assert [learner for learner in FIVE if protocol.has(learner)] == [
        learner for learner in FIVE if learner in RATES[name]
    ]
    for learner, (small, large) in RATES[name].items():
        for dataset, side, rate in (("cifar10", 32, small), ("tinyimagenet", 64, large)):
            made = protocol.recipe(learner, dataset, side, ("at",), "densenet121")
            wanted = small if rate is None else rate
            assert made == Recipe(
                epochs=epochs,
                batch_size=512,
                lr=wanted,
                optimizer="sgd",
                momentum=0.9,
                nesterov=False,
                weight_decay=1e-4,
                schedule="cosine",
                lr_end=1e-3,
                warmup_epochs=warmup,
                warmup_lr=0.01,
                grad_clip=None,
                shuffle=True,
                drop_last=True,
                normalize=normalize,
                stepwise="warmup" if warmup else False,
            )
            assert made.rate(epochs) == pytest.approx(wanted * 1e-3)
            if warmup:
                # contrastive-poisoning@628838c, util.py: the share of all warm-up batches
                top = wanted * (1e-3 + (1 - 1e-3) * (1 + math.cos(math.pi * 10 / 1000)) / 2)
                for number in (0, 7, 390, 9 * 390 + 3):
                    rate_then = 0.01 + number / (10 * 390) * (top - 0.01)
                    assert made.rate(number / 390) == pytest.approx(rate_then)
                assert [made.each_step(epoch) for epoch in (0, 9, 10, 500)] == [True] * 2 + [
                    False
                ] * 2
            else:
                assert made.rate(0) == wanted


def test_no_image_is_left_out_where_aue_trains() -> None:
    """AUE-AAP@64fb25f: its loaders keep the last batch; rates change with epochs."""
    for learner in ("supervised", "simclr", "byol", "moco", "simsiam"):
        made = PROTOCOLS.make("aue").recipe(learner, "cifar10", 32)
        assert (made.drop_last, made.stepwise) == (False, False)


def test_contrastive_learners_are_the_printed_ones() -> None:
    views = Views((0.2, 1.0), (3 / 4, 4 / 3), True, 0.8, 0.4, 0.4, 0.4, 0.1, 0.2, 0.0)
    head = {"loss_scale": "base007", "hidden": 512, "output": 128}
    printed: dict[str, dict[str, object]] = {
        "supcl": {"temperature": 0.5, **head},
        "simclr": {"temperature": 0.5, **head},
        "moco": {"temperature": 0.2, **head, "queue": 4096, "momentum": 0.99},
        "simsiam": {"hidden": 2048, "predictor": 512, "affine": False},
        "byol": {},
    }
    for protocol, rates in RATES.items():
        for learner in rates:
            trial = resolve(f"cifar10/lsp/standard/resnet18/{learner}/{protocol}/0", None)
            assert isinstance(trial.learner, TwoViews)
            assert not trial.learner.frozen_views
            known = {field: getattr(trial.learner, field) for field in printed[learner]}
            assert known == printed[learner]
            task = task_of(trial, toy(4), toy(4), torch.device("cpu"))
            assert trial.learner.pipeline(task) == views


def test_probes_are_the_printed_ones() -> None:
    """APBench: on clean images, at the rate of the pre-training; TP: on the poisoned ones."""
    apbench, tp = PROTOCOLS.make("apbench"), PROTOCOLS.make("tp")
    assert (apbench.probe_data, tp.probe_data) == ("clean", "poisoned")
    for learner, rate in (("simclr", 0.5), ("moco", 0.3)):
        made = apbench.probing(learner).recipe
        told = (made.epochs, made.batch_size, made.lr, made.schedule, made.weight_decay)
        assert told == (100, 128, rate, "constant", 0.0)
        assert apbench.probing(learner).passes > 0, "of crops and flips, not the images as they are"
    for learner in FIVE:
        made = tp.probing(learner).recipe
        rates = [made.rate(epoch) for epoch in (0, 59, 60, 75, 90, 99)]
        assert rates == pytest.approx([1.0, 1.0, 0.2, 0.04, 0.008, 0.008])
        assert (made.epochs, made.batch_size, made.weight_decay) == (100, 512, 0.0)
        assert tp.probing(learner).passes > 0


# protocol, dataset -> the standard augmentation of that source
AUGMENTED = {
    **{(name, "cifar10"): "crop_flip" for name in ("apbench", "dvae", "tp", "iss", "avatar")},
    **{(name, "svhn"): "none" for name in ("apbench", "apbench_grid", "apbench_repo", "dvae")},
    ("avatar", "svhn"): "crop_flip",
    ("tp", "tinyimagenet"): "crop_flip",
    ("apbench", "imagenet100"): "rrc_flip_jitter",
    ("apbench_grid", "imagenet100"): "rrc_flip_jitter",
    ("apbench_repo", "imagenet100"): "flip_jitter",
    ("avatar", "imagenet100"): "rrc_flip_jitter_weak",
    ("dvae", "imagenet100"): "rrc_flip",
    ("quick", "photo_digits"): "crop",
}


def test_victims_are_trained_with_the_augmentation_of_the_source() -> None:
    for (protocol, dataset), kind in AUGMENTED.items():
        trial = resolve(f"{dataset}/lsp/cutout/resnet18/supervised/{protocol}/0", None)
        assert trial.augmentation == kind, (protocol, dataset)
        images = toy(4)
        task = task_of(trial, images, images, torch.device("cpu"))
        assert task.augmentation == augment.standard(kind, trial.dataset.image_size)
    plain = resolve("imagenet100/lsp/none/resnet18/supervised/apbench/0", None)
    assert task_of(plain, images, images, torch.device("cpu")).augmentation is None


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_protocols_name_augmentations_and_datasets_that_exist(protocol: str) -> None:
    for dataset, kind in PROTOCOLS[protocol].augmentations.items():
        assert dataset in DATASETS
        assert augment.standard(kind, 32) is not None


def test_the_augmentation_of_the_source_is_a_part_of_the_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def keys() -> list[str]:
        specs = [f"{d}/lsp/cutout/resnet18/supervised/dvae/0" for d in ("imagenet100", "cifar10")]
        return [resolve(spec, None).key for spec in specs]

    own = keys()
    monkeypatch.setattr(PROTOCOLS["dvae"], "augmentations", {"imagenet100": "flip_jitter"})
    assert [one == other for one, other in zip(own, keys(), strict=True)] == [False, True]
    monkeypatch.setattr(PROTOCOLS["dvae"], "augmentations", {"imagenet100": "rrc_flip"})
    assert own == keys()


def test_what_a_spec_sets_wins() -> None:
    spec = "photo_digits/clean/at/vit_small/supervised/iss(epochs=3, lr=0.5)/0"
    trial = resolve(spec, None)
    assert (trial.recipe.epochs, trial.recipe.lr, trial.recipe.optimizer) == (3, 0.5, "adam")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"schedule": "cosin"}, r"unknown schedule 'cosin' \(did you mean 'cosine'\?\)"),
        ({"optimizer": "sdg"}, r"unknown optimizer 'sdg' \(did you mean 'sgd'\?\)"),
        ({"precision": "fp16"}, r"unknown precision 'fp16' .*; known: "),
        ({"flips": "alternate"}, r"unknown flips 'alternate' \(did you mean 'alternating'\?\)"),
        ({"stepwise": "warm"}, "stepwise is 'warm', allowed are True, False and 'warmup'"),
        ({"epochs": 1.5}, r"epochs is 1\.5, allowed are whole numbers from 1"),
        ({"epochs": np.float64(3)}, "epochs is 3.0, allowed are whole numbers from 1"),
        ({"epochs": True}, "epochs is True, allowed are whole numbers from 1"),
        ({"lr": np.float32(math.inf)}, "lr is inf, allowed are positive numbers"),
        ({"lr": np.bool_(True)}, "lr is .*True.*, allowed are positive numbers"),
        ({"batch_size": 1}, "batch_size is 1, allowed are whole numbers from 2"),
        ({"warmup_epochs": -1}, "warmup_epochs is -1, allowed are whole numbers from 0"),
        ({"lr": math.nan}, "lr is nan, allowed are positive numbers"),
        ({"lr": "0.1"}, r"lr is '0\.1', allowed are positive numbers"),
        ({"lr_end": -3}, "lr_end is -3, allowed are 0 to 1, a share of lr"),
        ({"momentum": 5}, "momentum is 5, allowed are 0 to below 1"),
        ({"weight_decay": math.nan}, "weight_decay is nan, allowed are numbers from 0"),
        ({"gamma": -0.1}, r"gamma is -0\.1, allowed are numbers from 0"),
        ({"milestones": 5}, "milestones is 5, allowed is a tuple of epochs"),
        ({"milestones": (2, 2.5)}, r"milestones is \(2, 2\.5\), allowed is a tuple of epochs"),
        ({"grad_clip": -1}, "grad_clip is -1, allowed are None and positive numbers"),
        ({"shuffle": "no"}, "shuffle is 'no', allowed are True and False"),
        ({"drop_last": "false"}, "drop_last is 'false', allowed are True and False"),
        ({"nesterov": "no"}, "nesterov is 'no', allowed are True and False"),
        ({"normalize": 1}, "normalize is 1, allowed are True and False"),
        ({"groups": (1,)}, r"groups is \(1,\), allowed is a tuple of Groups"),
    ],
)
def test_a_recipe_that_nobody_can_follow_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        Recipe(**{"epochs": 3, **changes})


def test_numbers_of_numpy_are_those_of_python_in_a_recipe() -> None:
    given: dict[str, Any] = {"epochs": np.int64(3), "lr": np.float32(0.5), "lr_end": np.int8(0)}
    falls, clip = [np.int64(1), 2], np.float64(5.0)
    recipe = Recipe(**given, milestones=falls, grad_clip=clip)  # type: ignore[arg-type]
    plain = Recipe(epochs=3, lr=0.5, lr_end=0, milestones=(1, 2), grad_clip=5.0)
    assert recipe == plain
    assert json.dumps(recipe.resolved()) == json.dumps(plain.resolved())


def test_milestones_may_be_a_list() -> None:
    assert Recipe(epochs=3, milestones=[1, 2]) == Recipe(epochs=3, milestones=(1, 2))  # type: ignore[arg-type]
