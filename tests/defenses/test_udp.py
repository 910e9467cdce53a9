"""UDP beside the rule of its code: hala64/udp@ec21d72, utils.py and sdaan.py."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from raygrid.architectures import ARCHITECTURES
from raygrid.core.errors import SpecError
from raygrid.core.seeds import Stream
from raygrid.defenses import DEFENSES
from raygrid.defenses.base import FitContext
from raygrid.defenses.udp import Udp, raised
from raygrid.engine.grid import plan
from raygrid.learners.supervised import augmented
from raygrid.nn.augment import CropFlip, Views
from raygrid.nn.networks import freeze, untrained
from raygrid.nn.pgd import Ball
from raygrid.nn.recipes import Recipe
from raygrid.nn.steps import Batch, Step
from raygrid.nn.trainer import Trainer
from raygrid.trials.resolve import resolve
from raygrid.trials.run import task_of
from tests.conftest import toy
from tests.nn.test_augment import one_by_one

EPS = 8 / 255


def pgd_attack(network: nn.Module, x: Tensor, y: Tensor, step: float = 1 / 255) -> Tensor:
    """Ten signed steps from the image, into ball and range after each."""
    moved = x
    for _ in range(10):
        moved = moved.detach().requires_grad_()
        loss = nn.functional.cross_entropy(network(moved), y)
        (gradient,) = torch.autograd.grad(loss, moved)
        moved = moved.detach() + gradient.sign() * step
        moved = torch.min(torch.max(moved, x - EPS), x + EPS).clamp(0, 1)
    return moved


def test_the_noise_is_that_of_the_code() -> None:
    images = toy(32, 8, 4)
    network = freeze(ARCHITECTURES.make("two_layer").build(4, 8, 0))
    found = raised(network, images.floats(), images.labels, Ball(EPS, 10, 1 / 255))
    expected = pgd_attack(network, images.floats(), images.labels)
    assert float((found - expected).abs().gt(1e-6).float().mean()) < 1e-3


def test_its_network_is_trained_as_in_the_code() -> None:
    """denoise: SGD against ten steps of 2/255, rates a tenth after 75 and 90 of 100 epochs."""
    images, epochs = toy(300, 8, 4), 8
    context = FitContext(Stream("purify", ("toy", 0)), torch.device("cpu"))
    ours = Udp(epochs=epochs).network(images, context)
    network = untrained(
        ARCHITECTURES.make("two_layer"), images, context.stream.seed("init"), context.device
    )
    start = copy.deepcopy(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    falls = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[6, 7], gamma=0.1)
    recipe = Recipe(epochs=epochs, batch_size=128)
    order = Trainer(nn.Linear(1, 1), unused, images, recipe, context.stream)
    for epoch in range(epochs):
        for batch in order.batches(epoch):
            moved = pgd_attack(network, batch.x, batch.y, 2 / 255)
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(moved), batch.y).backward()
            optimizer.step()
        falls.step()
    for mine, theirs, first in zip(
        ours.parameters(), network.parameters(), start.parameters(), strict=True
    ):
        change = float((theirs - first).detach().abs().max())
        assert change > 1e-3
        assert float((mine - theirs).detach().abs().max()) < 1e-4 * change


def unused(batch: Batch) -> Step:
    raise AssertionError


def test_what_is_stored_is_harder_for_the_network_it_was_made_against() -> None:
    images = toy(64, 8, 4)
    udp = Udp(epochs=3)
    context = FitContext(Stream("purify", ("toy", 0)), torch.device("cpu"))
    made = udp.purify(images, context)
    change = made.pixels.int() - images.pixels.int()
    assert int(change.abs().max()) <= 8
    network = udp.network(images, context)
    losses = [
        float(nn.functional.cross_entropy(network(some.floats()), some.labels))
        for some in (images, made)
    ]
    assert losses[1] > losses[0] + 0.03
    assert network.training is False


def shown(defense: str, dataset: str = "cifar10") -> tuple[Tensor, Tensor, torch.Generator]:
    """Images, what a supervised learner is shown of them, and a generator of the same draws."""
    trial = resolve(f"{dataset}/clean/{defense}/small_cnn/supervised/quick/0", None)
    images, rows = toy(24, 32, 10), torch.arange(24)
    task = task_of(trial, images, images, torch.device("cpu"))
    x, rng = images.floats(), torch.Generator().manual_seed(3)
    seen, _ = augmented(task, trial.defense, Batch(x, images.labels, rows, rng, 0))
    return x, seen, torch.Generator().manual_seed(3)


@pytest.mark.parametrize(("dataset", "mirrored"), [("cifar10", True), ("photo_digits", False)])
def test_training_sees_strong_views_in_place_of_padded_crops(dataset: str, mirrored: bool) -> None:
    """denoise_aug: RandomResizedCrop, flip, ColorJitter, gray, all of the stored images."""
    x, seen, rng = shown("udp", dataset)
    flips = CropFlip(0, mirrored).sample(x, rng)[1]
    assert bool(flips.any()) == mirrored
    views = Views(scale=(0.1, 1.0), flip=False)  # 1 - 0.9 to 1; the rest as in SimCLR
    params = views.sample(x, rng)
    turned = torch.where(flips.view(-1, 1, 1, 1), x.flip(-1), x)
    assert float((seen - one_by_one(turned, views, params)).abs().max()) < 1e-5
    assert bool(params.jitters.any())
    _, twice, _ = shown("udp+cutout", dataset)
    kept = (twice != 0).all(1)
    assert 0.6 < float(kept.float().mean()) < 1
    assert torch.equal(twice.movedim(1, -1)[kept], seen.movedim(1, -1)[kept])


def test_without_strength_training_sees_standard_augmentation() -> None:
    x, seen, rng = shown("udp(strength=0.0)")
    assert torch.equal(seen, CropFlip(4)(x, rng))
    assert torch.equal(seen, shown("standard")[1])


def test_images_that_its_network_cannot_take_are_refused_before_anything_is_made() -> None:
    (skip,) = plan(["imagenet100/lsp/udp/resnet18/supervised/apbench/0"], None).skips
    assert skip.reason == "udp: two_layer takes images of 8 to 64 pixels, not 224"


def test_an_estimate_grows_with_the_fourth_power_of_the_side() -> None:
    """Of which an epoch of a ResNet-18, the unit, has the second; measured: 17.7 times at 64."""
    udp = DEFENSES.make("udp")
    assert udp.purify_cost_of(50_000, 32) == udp.purify_cost
    assert udp.purify_cost_of(50_000, 64) == 4 * udp.purify_cost


def test_more_than_all_strength_is_refused() -> None:
    with pytest.raises(SpecError, match=r"strength is 2\.0"):
        DEFENSES.make("udp(strength=2.0)")
