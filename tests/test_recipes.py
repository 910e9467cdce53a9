"""Supervised protocols against the settings that their sources print."""

from __future__ import annotations

import pytest
import torch

from raygrid import augment
from raygrid.datasets import DATASETS
from raygrid.protocols import PROTOCOLS
from raygrid.recipes import Recipe
from raygrid.resolve import resolve
from raygrid.trial import task_of
from tests.conftest import toy

# protocol, dataset, defense, architecture -> what stands in the source
PRINTED: list[tuple[tuple[str, str, str, str], dict[str, object]]] = [
    (("apbench", "cifar10", "jpeg", "resnet18"), {"epochs": 200, "batch_size": 128}),
    (("apbench", "svhn", "standard", "resnet18"), {"epochs": 100}),
    (("apbench", "imagenet100", "standard", "resnet18"), {"batch_size": 256, "epochs": 200}),
    (("apbench", "cifar10", "ueraser_max", "resnet18"), {"epochs": 300}),
    (("apbench_repo", "cifar10", "standard", "resnet18"), {"batch_size": 256, "shuffle": False}),
    (("apbench_repo", "imagenet100", "standard", "resnet18"), {"shuffle": True}),
    (("learned_faster", "cifar10", "standard", "resnet18"), {"epochs": 100, "grad_clip": None}),
    (("dvae", "cifar10", "dvae", "resnet18"), {"epochs": 60, "grad_clip": 5.0, "lr": 0.1}),
    (("dvae", "cifar100", "dvae", "resnet18"), {"epochs": 100}),
    (("dvae", "cifar10", "standard", "densenet121"), {"batch_size": 96}),
    (("dvae", "cifar10", "at", "resnet18"), {"epochs": 100, "milestones": (75, 90)}),
    (("dvae", "cifar10", "ueraser_max", "resnet18"), {"epochs": 200, "lr": 0.01}),
    (("tp", "cifar10", "standard", "resnet18"), {"epochs": 100, "drop_last": False}),
    (("iss", "cifar10", "jpeg", "resnet18"), {"epochs": 60, "schedule": "cosine"}),
    (("iss", "cifar10", "at", "resnet18"), {"epochs": 100}),
    (("iss", "cifar10", "standard", "vit_small"), {"epochs": 200, "optimizer": "adam"}),
    (("avatar", "cifar10", "avatar", "resnet18"), {"epochs": 120, "grad_clip": 5.0}),
]


@pytest.mark.parametrize(("cell", "printed"), PRINTED, ids=lambda v: "-".join(map(str, v)))
def test_recipes_are_the_printed_ones(cell: tuple[str, ...], printed: dict[str, object]) -> None:
    protocol, dataset, defense, architecture = cell
    made = PROTOCOLS.make(protocol).recipe("supervised", dataset, 32, (defense,), architecture)
    assert {name: getattr(made, name) for name in printed} == printed
    assert made.weight_decay == (0.0 if architecture == "vit_small" else 5e-4)
    assert made.momentum == 0.9


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
