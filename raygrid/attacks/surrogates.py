"""Surrogates: networks that attacks differentiate, trained once and kept as artifacts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from raygrid.architectures import ARCHITECTURES
from raygrid.architectures.base import Network
from raygrid.augment import CropFlip
from raygrid.data import Images
from raygrid.seeds import Stream
from raygrid.training import Batch, Recipe, Step, Trainer, classify_step, place


@dataclass(frozen=True)
class SurrogateRecipe:
    """How a surrogate is trained on the clean training set.

    name: what the attack calls it. augmentation: a key of `AUGMENTATIONS`.
    """

    name: str
    architecture: str
    recipe: Recipe
    augmentation: str = "crop_flip"

    def resolved(self) -> dict[str, Any]:
        """All that decides the weights, as JSON values (the name does not)."""
        architecture = ARCHITECTURES.make(self.architecture)
        return {
            "architecture": architecture.resolved(),
            "recipe": dataclasses.asdict(self.recipe),
            "augmentation": self.augmentation,
            "version": 1,
        }

    def build(self, images: Images, seed: int, device: torch.device) -> Network:
        """The untrained network, on the device."""
        kind = ARCHITECTURES.make(self.architecture)
        network = kind.build(images.classes, images.shape[-1], seed)
        place(network, device, kind.convolutional)
        return network


def affine_shift(x: Tensor, rng: torch.Generator) -> Tensor:
    """Bilinear shift by up to a quarter of half the side, and flip: TAP's augmentation.

    Shifts are uniform in [-1, 1] times f in normalized coordinates, f = linspace(0, 1, S)[S // 4],
    one draw per image; grid_sample with zeros outside and align_corners.
    """
    n, side, device = len(x), x.shape[-1], x.device
    fraction = (side // 4) / (side - 1)
    draws = torch.rand(n, 3, generator=rng, device=device)
    return shift_by(x, (draws[:, :2] * 2 - 1) * fraction, draws[:, 2] < 0.5)


def shift_by(x: Tensor, shift: Tensor, flips: Tensor) -> Tensor:
    """Shift (n, 2) in normalized coordinates and flip bool (n,), differentiable in x."""
    theta = torch.zeros(len(x), 2, 3, device=x.device)
    theta[:, 0, 0] = torch.where(flips, -1.0, 1.0)
    theta[:, 1, 1] = 1.0
    theta[:, :, 2] = shift
    grid = nn.functional.affine_grid(theta, list(x.shape), align_corners=True)
    return nn.functional.grid_sample(x, grid, padding_mode="zeros", align_corners=True)


def _crop_flip(x: Tensor, rng: torch.Generator) -> Tensor:
    return CropFlip(x.shape[-1] // 8)(x, rng)


AUGMENTATIONS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "none": lambda x, rng: x,
    "crop_flip": _crop_flip,
    "affine_shift": affine_shift,
}


def train_surrogate(
    recipe: SurrogateRecipe, images: Images, stream: Stream, device: torch.device
) -> Network:
    """Train on the clean set; returns the network in eval mode without gradients."""
    network = recipe.build(images, stream.seed("init"), device)
    augment = AUGMENTATIONS[recipe.augmentation]
    kind = ARCHITECTURES.make(recipe.architecture)
    precision = recipe.recipe.precision if kind.convolutional else "fp32"

    def step(batch: Batch) -> Step:
        batch.x = augment(batch.x, batch.rng)
        return classify_step(network, batch, precision)

    trainer = Trainer(network, step, images.to(device), recipe.recipe, stream)
    for epoch in range(recipe.recipe.epochs):
        trainer.epoch(epoch)
    return freeze(network)


def freeze(network: Network) -> Network:
    """Eval mode, no gradients for the parameters."""
    network.eval()
    network.requires_grad_(False)
    return network
