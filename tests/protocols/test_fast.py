"""The protocol of fast victims: its rungs, what a spec changes, and that it trains."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from raygrid.architectures import ARCHITECTURES
from raygrid.core.errors import SpecError
from raygrid.core.images import Images
from raygrid.core.seeds import Stream
from raygrid.core.spec import Part
from raygrid.datasets import DATASETS
from raygrid.defenses.chain import Chain
from raygrid.learners import LEARNERS
from raygrid.learners.base import Task
from raygrid.nn import augment
from raygrid.nn.recipes import Recipe
from raygrid.protocols import PROTOCOLS
from raygrid.trials.evaluate import score
from raygrid.trials.resolve import resolve
from tests.conftest import toy


def recipe(
    protocol: str = "fast", architecture: str = "airbench", dataset: str = "cifar10"
) -> Recipe:
    return PROTOCOLS.make(protocol).recipe("supervised", dataset, 32, ("jpeg",), architecture)


def test_the_full_rung_is_the_training_of_its_source() -> None:
    """KellerJordan/cifar10-airbench@f1c599c, airbench94_muon.py: its numbers, read by hand."""
    made = recipe()
    assert (made.epochs, made.batch_size, made.optimizer) == (8, 2000, "muon")
    assert (made.schedule, made.stepwise, made.lr_end) == ("linear", True, 0.0)
    assert (made.smoothing, made.flips, made.normalize) == (0.2, "alternating", True)
    whiten, biases, head, convolutions = made.groups
    assert (whiten.until, whiten.lr, biases.lr, head.lr) == (3 / 8, 0.053, 0.053, 0.67)
    for group in (whiten, biases, head):
        assert group.momentum == 0.85
        assert group.per_image
        assert group.lr * group.weight_decay == pytest.approx(2e-6)
    assert (convolutions.lr, convolutions.momentum, convolutions.orthogonal) == (0.24, 0.6, True)
    assert made.batch_for(50_000) == 2000
    assert made.batch_for(1000) == 50


@pytest.mark.parametrize("name", ["airbench", "small_airbench"])
def test_every_parameter_of_the_network_has_its_group(name: str) -> None:
    from raygrid.nn.optimizers import grouped

    network = ARCHITECTURES.make(name).build(10, 32, 0)
    found = {g.names if g else "": len(params) for g, params in grouped(network, recipe())}
    assert found == {"body.0.bias": 1, "*.bias": 6, "head.*": 1, "body.*.weight": 7}


@pytest.mark.parametrize(
    ("protocol", "architecture", "optimizer", "epochs"),
    [
        ("fast(rung=resnet18)", "resnet18", "sgd", 24),
        ("fast(rung=resnet18)", "airbench", "sgd", 24),
        ("fast", "resnet18", "sgd", 8),
        ("fast", "vit_small", "adam", 8),
        ("fast(rung=minutes, epochs=5)", "small_airbench", "muon", 5),
        ("fast(epochs=3)", "small_vgg", "sgd", 3),
    ],
)
def test_what_trains_a_network(
    protocol: str, architecture: str, optimizer: str, epochs: int
) -> None:
    made = recipe(protocol, architecture)
    assert (made.optimizer, made.epochs) == (optimizer, epochs)
    assert bool(made.groups) == (optimizer == "muon")


def test_a_rate_of_the_spec_moves_all_rates_along() -> None:
    usual, doubled = recipe(), recipe("fast(lr=0.48)")
    assert doubled.lr == 0.48
    for one, other in zip(usual.groups, doubled.groups, strict=True):
        assert other == dataclasses.replace(one, lr=2 * one.lr)


def test_one_cycle_rises_and_falls_with_every_step() -> None:
    made = recipe("fast(rung=resnet18)", "resnet18")
    rates = [made.rate(step / 10) for step in range(240)]
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert len(set(rates[:top])) == top
    assert max(rates) == pytest.approx(0.4)
    assert rates[-1] < 0.03


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "svhn"])
def test_the_datasets_it_is_meant_for(dataset: str) -> None:
    trial = resolve(f"{dataset}/lsp/cutout/airbench/supervised/fast/0", None)
    assert trial.skip() is None
    assert trial.augmentation == ("none" if dataset == "svhn" else "shift_flip")
    assert trial.recipe.optimizer == "muon"
    assert PROTOCOLS["fast"].tier == "screening"


def test_a_rung_that_does_not_exist_is_refused_with_the_nearest() -> None:
    with pytest.raises(SpecError, match=r"rung: unknown value 'minute'.*minutes"):
        PROTOCOLS.make("fast(rung=minute)")


def session(
    images: Images,
    chain: str = "standard",
    augmentation: str = "shift_flip",
    architecture: str = "small_airbench",
) -> tuple[Task, object]:
    how = recipe("fast(rung=minutes)", "small_airbench")
    task = Task(
        train=images,
        labeled=images,
        architecture=ARCHITECTURES.make(architecture),
        recipe=how,
        defense=Chain.make(tuple(map(Part.parse, chain.split("+")))),
        streams={axis: Stream(axis) for axis in ("init", "data", "views", "probe")},
        augmentation=augment.standard(augmentation, images.shape[-1]),
        normalization=((0.5,) * 3, (0.2,) * 3),
    )
    return task, LEARNERS.make("supervised").start(task)


def test_it_learns_digits_in_batches_smaller_than_the_recipes(tmp_path: Path) -> None:
    digits = DATASETS.make("photo_digits(every=10)").load(tmp_path)
    task, made = session(digits.train, augmentation="crop")
    assert task.recipe.batch_for(len(task.train)) == 16
    for epoch in range(task.recipe.epochs):
        metrics = made.epoch(epoch)  # type: ignore[attr-defined]
        assert 0 <= metrics["train_acc"] <= 1
    reached = score(made.classifier(), digits.test, lambda x: x).acc  # type: ignore[attr-defined]
    assert reached > 0.8


def test_two_trainings_are_the_same() -> None:
    states = []
    for _ in range(2):
        _, made = session(toy(60))
        made.epoch(0)  # type: ignore[attr-defined]
        states.append(made.classifier().state_dict())  # type: ignore[attr-defined]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("whiten", ["none", "photos", "train"])
def test_a_constant_training_set_trains_to_finite_numbers(whiten: str) -> None:
    """Whitening it divides by the eigenvalues of patches that never differ: all of them are 0."""
    same = Images(torch.full((40, 3, 32, 32), 9, dtype=torch.uint8), torch.arange(40) % 4, 4)
    _, made = session(same, architecture=f"small_airbench(whiten={whiten})")
    assert made.epoch(0)["train_loss"] < 10  # type: ignore[attr-defined]
