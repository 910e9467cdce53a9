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
from raygrid.nn.pgd import Ball
from raygrid.nn.recipes import Recipe
from raygrid.nn.trainer import Batch, Step, Trainer, freeze, untrained
from tests.conftest import toy

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


def test_without_strength_images_are_shown_as_they_are() -> None:
    x, y = toy(8, 16).floats(), torch.zeros(8)
    shown, _ = Udp(strength=0.0).augment(x, y, torch.Generator().manual_seed(0))
    assert float((shown - x).abs().max()) < 1e-5
    with pytest.raises(SpecError, match=r"strength is 2\.0"):
        DEFENSES.make("udp(strength=2.0)")
