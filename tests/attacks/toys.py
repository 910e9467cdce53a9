"""What the tests of attacks share: a toy world, small settings and a victim."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from raygrid.architectures import ARCHITECTURES
from raygrid.attacks import ATTACKS
from raygrid.attacks.base import Attack
from raygrid.core import draws
from raygrid.core.images import Images
from raygrid.core.seeds import Stream
from raygrid.nn.networks import freeze, to_device
from raygrid.nn.recipes import Recipe
from raygrid.nn.steps import classify_step
from raygrid.nn.trainer import Trainer
from tests.conftest import toy

A = TypeVar("A", bound=Attack)
CPU = torch.device("cpu")
WORLD, TEST = toy(256), toy(256, seed=1)
RECIPE = Recipe(epochs=3, batch_size=16, precision="fp32")


def saturated(n: int = 24) -> Images:
    """Images with many black and many white pixels."""
    images = toy(n)
    stretched = (images.pixels.float() - 128) * 2.5 + 128
    return images.with_pixels(stretched.clamp(0, 255).byte())


def make(name: str, **settings: object) -> Attack:
    return ATTACKS[name](**{"surrogate": "small_cnn", **settings})  # type: ignore[arg-type]


def attack_of(kind: type[A], part: str) -> A:
    """An attack by its part, of which the tests know the class."""
    attack = ATTACKS.make(part)
    assert isinstance(attack, kind)
    return attack


def linear(weights: Tensor) -> Callable[[Tensor, int], Tensor]:
    """A loss whose gradient is known: the scalar product of each image with `weights`."""
    return lambda z, step: (z * weights).flatten(1).sum(1)


def moved_weights(network: nn.Module, sigma: float, rng: torch.Generator) -> list[Tensor]:
    """Add noise to every parameter, in their order; returns what was added."""
    added = []
    with torch.no_grad():
        for parameter in network.parameters():
            added.append(sigma * draws.randn(parameter.shape, rng, CPU))
            parameter += added[-1]
    return added


def victim(
    train: Images,
    epochs: int = 8,
    batch_size: int = 32,
    seed: int = 7,
    before: Callable[[nn.Module], nn.Module] | None = None,
) -> nn.Module:
    """small_cnn after one-cycle SGD without augmentation; before: what is put before it."""
    kind = ARCHITECTURES.make("small_cnn")
    network: nn.Module = to_device(kind.build(train.classes, train.shape[-1], seed), CPU, True)
    if before is not None:
        network = before(network)
    recipe = Recipe(
        epochs=epochs, batch_size=batch_size, nesterov=True, schedule="one_cycle", precision="fp32"
    )
    trainer = Trainer(
        network, lambda b: classify_step(network, b, "fp32"), train, recipe, Stream("victim")
    )
    for epoch in range(epochs):
        trainer.epoch(epoch)
    return freeze(network)
