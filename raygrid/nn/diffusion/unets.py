"""The U-Net that published noise predictors share, its parameters in the order they come in."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Layout:
    """multiples: of the width, by level. depth: residual blocks of each. attended: sides of maps
    that have attention."""

    multiples: tuple[int, ...]
    depth: int
    attended: tuple[int, ...]


@dataclass(frozen=True)
class Family:
    """What sets the networks of one source apart.

    waves: sines and cosines (n, width) of labels (n,). norm, attention: modules for so many
    channels. scales: whether the label scales normalized maps too, not only shifts them. root: what
    sums are divided by. bridged: whether every block that resamples has a convolution beside it.
    throughout: on the way up, whether all blocks of an attended level have attention, or the last.
    outputs: channels, of which the first three are the noise.
    """

    waves: Callable[[Tensor, int], Tensor]
    norm: Callable[[int], nn.GroupNorm]
    attention: Callable[[int], nn.Module]
    scales: bool
    root: float
    bridged: bool
    throughout: bool
    outputs: int


class DiffusionUNet(nn.Module):
    """Noise in images (n, 3, side, side) at labels (n,)."""

    def __init__(self, family: Family, layout: Layout, side: int, width: int) -> None:
        super().__init__()
        self.family, self.width = family, width
        self.embed = nn.ModuleList([nn.Linear(width, 4 * width), nn.Linear(4 * width, 4 * width)])
        self.first = nn.Conv2d(3, width, 3, padding=1)
        channels, skips = width, [width]

        def block(
            inputs: int, outputs: int, how: Resample = "", attends: bool = False
        ) -> ResidualBlock:
            return ResidualBlock(family, inputs, outputs, 4 * width, how, attends)

        down: list[ResidualBlock] = []
        for level, multiple in enumerate(layout.multiples):
            attends = side >> level in layout.attended
            for _ in range(layout.depth):
                down.append(block(channels, multiple * width, attends=attends))
                channels = multiple * width
                skips.append(channels)
            if level < len(layout.multiples) - 1:
                down.append(block(channels, channels, "down"))
                skips.append(channels)
        self.down = nn.ModuleList(down)
        self.middle = nn.ModuleList(
            [block(channels, channels, attends=attends) for attends in (True, False)]
        )
        up: list[ResidualBlock] = []
        for level, multiple in reversed(list(enumerate(layout.multiples))):
            for number in range(layout.depth + 1):
                attends = side >> level in layout.attended
                attends = attends and (family.throughout or number == layout.depth)
                up.append(block(channels + skips.pop(), multiple * width, attends=attends))
                channels = multiple * width
            if level:
                up.append(block(channels, channels, "up"))
        self.up = nn.ModuleList(up)
        self.norm = family.norm(channels)
        self.last = nn.Conv2d(channels, family.outputs, 3, padding=1)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        enter, leave = self.embed
        e = leave(F.silu(enter(self.family.waves(labels.float(), self.width))))
        h = self.first(x)
        kept = [h]
        for block in self.down:
            h = block(h, e)
            kept.append(h)
        for block in self.middle:
            h = block(h, e)
        for block in self.up:
            h = block(h if block.resample == "up" else torch.cat([h, kept.pop()], 1), e)
        out: Tensor = self.last(F.silu(self.norm(h)))
        return out[:, :3]


Resample = Literal["", "down", "up"]


class ResidualBlock(nn.Module):
    """A residual block, resampled before its first convolution, and attention behind it."""

    def __init__(
        self,
        family: Family,
        inputs: int,
        outputs: int,
        embedding: int,
        resample: Resample,
        attends: bool,
    ) -> None:
        super().__init__()
        self.family, self.resample = family, resample
        self.norm1 = family.norm(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.told = nn.Linear(embedding, 2 * outputs if family.scales else outputs)
        self.norm2 = family.norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        plain = inputs == outputs and not (resample and family.bridged)
        self.skip = nn.Identity() if plain else nn.Conv2d(inputs, outputs, 1)
        self.attention = family.attention(outputs) if attends else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv1(self._resampled(F.silu(self.norm1(x))))
        told = self.told(F.silu(embedding))[:, :, None, None]
        if self.family.scales:
            scale, shift = told.chunk(2, dim=1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + told)
        h = self.conv2(F.silu(h))
        out: Tensor = self.attention((self.skip(self._resampled(x)) + h) / self.family.root)
        return out

    def _resampled(self, x: Tensor) -> Tensor:
        if self.resample == "down":
            return F.avg_pool2d(x, 2)
        return F.interpolate(x, scale_factor=2) if self.resample == "up" else x


def phases(labels: Tensor, count: int, span: int) -> Tensor:
    """Labels (n,) at so many frequencies, from 1 down; span: after how many it is 1/10,000."""
    rates = torch.exp(torch.arange(count, device=labels.device) * -math.log(10_000) / span)
    return labels[:, None] * rates
