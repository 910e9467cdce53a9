"""OPS: the one-pixel shortcut."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from raygrid.attacks.base import ATTACKS, Attack, AttackContext
from raygrid.core.budget import Budget
from raygrid.core.errors import SpecError
from raygrid.core.images import Images
from raygrid.core.lazy import torch
from raygrid.core.registry import Card, Combination

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK = 256
"""Images summed at once: 256 * 255^2 < 2^24, so float32 sums of squares are exact."""


@ATTACKS.register("ops")
@dataclass(frozen=True, kw_only=True)
class Ops(Attack):
    """In every image of a class the same pixel gets the same corner color.

    For a position and a color v of {0, 1}^C, D holds |v - x| over all images of the class and all
    channels; its score is mean(D) / std(D). Classes choose in order; each takes its best pair of
    position and color that no class before it took. A budget l0:k takes the k best at distinct
    positions. Scores are exact integers until the last division; x/0 is the best score and 0/0,
    a pixel that has the color already in every image, the worst; ties go to the first position,
    then the darkest color.
    """

    card = Card(
        paper="Wu et al. 2023, One-Pixel Shortcut",
        code="cychomatica/One-Pixel-Shotcut@fe440c1 (perturb.py)",
        published={
            "cifar10/ops/none/resnet18/supervised/apbench/0": 0.1194,
            "cifar10/ops/standard/resnet18/supervised/apbench/0": 0.1469,
            "cifar10/ops/standard/resnet18/supervised/dvae/0": 0.2203,
            "cifar100/ops/standard/resnet18/supervised/dvae/0": 0.1256,
        },
        needs="the labels of all images",
        cost="two passes over the pixels",
        notes="the code divides by the standard deviation over all channels together, the paper "
        "speaks of a variance; this follows the code. Its NaN of constant pixels, which it would "
        "choose, is the worst score here",
    )
    norms: ClassVar[tuple[str, ...]] = ("l0",)
    sharded: ClassVar[bool] = True
    seeded: ClassVar[bool] = False

    budget: Budget = Budget("l0", 1)  # pixels of an image

    def skip(self, combination: Combination) -> str | None:
        return self._fault(combination.image_size, combination.image_size)

    def propose(self, images: Images, context: AttackContext) -> Tensor:
        channels, height, width = images.shape
        fault = self._fault(height, width)
        if fault:
            raise SpecError(fault)
        index = context.index(images)
        labels = images.labels[index]
        out = images.pixels[index].flatten(2)
        for label, (places, colors) in shortcuts(images, int(self.budget.value)).items():
            rows = (labels == label).nonzero()
            out[rows, :, places] = colors
        return out.view(-1, channels, height, width)

    def _fault(self, height: int, width: int) -> str | None:
        if self.budget.value <= height * width:
            return None
        return f"budget {self.budget} is more than the {height * width} pixels of an image"


def shortcuts(images: Images, count: int) -> dict[int, tuple[Tensor, Tensor]]:
    """The `count` places int64 (count,) in h * W + w and colors uint8 (count, C) of each class.

    Classes without an image have none.
    """
    channels = images.shape[0]
    colors = _corner_colors(channels)
    taken = torch.zeros(math.prod(images.shape[1:]), len(colors), dtype=torch.bool)
    chosen = {}
    for label in range(images.classes):
        rows = (images.labels == label).nonzero().squeeze(1)
        if len(rows):
            members = images.pixels.index_select(0, rows)  # five times as fast as a mask
            places, hues = _best(scores(members, colors), taken, count)
            taken[places, hues] = True
            chosen[label] = places, colors[hues] * 255
    return chosen


def scores(pixels: Tensor, colors: Tensor) -> Tensor:
    """(mean(D) / std(D))^2 for each place and color: float64 (H * W, colors).

    pixels: uint8 (n, C, H, W); colors: uint8 (colors, C) of 0 and 1. With N = n * C samples,
    A = sum(D) and B = sum(D^2) it is A^2 / (N * B - A^2), in integers.
    """
    n, channels = pixels.shape[:2]
    first, second = _sums(pixels)
    white_first, white_second = 255 * n - first, 255**2 * n - 510 * first + second
    white = colors.long()
    a = (white_first.T @ white.T) + (first.T @ (1 - white).T)
    b = (white_second.T @ white.T) + (second.T @ (1 - white).T)
    square, rest = a * a, n * channels * b - a * a
    score = square.double() / rest.double()  # x/0 is infinite
    return score.masked_fill_(a == 0, -math.inf)


def _sums(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of values and of squares over images: int64 (C, H * W) each."""
    first = torch.zeros(math.prod(pixels.shape[1:]), dtype=torch.int64)
    second = first.clone()
    for block in pixels.flatten(1).split(_BLOCK):
        values = block.float()
        first += values.sum(0).long()
        second += values.square_().sum(0).long()
    return first.view(pixels.shape[1], -1), second.view(pixels.shape[1], -1)


def _best(score: Tensor, taken: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The best pairs that are not taken, at distinct places: places and colors, int64 (count,)."""
    best, hue = score.masked_fill(taken, -math.inf).max(1)  # the first color of equal ones
    places = best.sort(descending=True, stable=True).indices[:count]
    return places, hue[places]


def _corner_colors(channels: int) -> Tensor:
    """All colors of {0, 1}^C, uint8 (2^C, C), counted up with the last channel fastest."""
    codes = torch.arange(2**channels)[:, None] >> torch.arange(channels - 1, -1, -1)
    return (codes & 1).to(torch.uint8)
