"""DDPM++, the network of score-SDE's checkpoints, in whose order its averaged weights come.

Song et al. 2021, "Score-Based Generative Modeling through Stochastic Differential Equations",
appendix H; yang-song/score_sde_pytorch, `configs/vp/cifar10_ddpmpp*_continuous`. Residual blocks
of BigGAN without FIR filters, sums scaled by 1/sqrt(2), attention at 16 pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LAYOUTS: tuple[tuple[tuple[int, ...], int], ...] = (
    ((1, 2, 2, 2), 8),  # deep: CIFAR-10, and the CIFAR-100 and SVHN models of AVATAR's authors
    ((1, 2, 2, 2), 4),  # not deep
    ((2, 2, 2), 4),  # `cifar100_ddpmpp` of AVATAR's authors
)
"""Multiples of the width by level, and residual blocks of each, of published checkpoints."""

_ATTENDED = 16  # side of the maps that have attention


class DDPMpp(nn.Module):
    """Noise in images (n, 3, side, side) at labels (n,): 999 times the time in [0, 1]."""

    def __init__(self, side: int, width: int, multiples: Sequence[int], depth: int) -> None:
        super().__init__()
        self.width = width
        self.embed = nn.ModuleList(
            [nn.Linear(width, 4 * width), nn.Linear(4 * width, 4 * width)]  # sine, cosine in
        )
        self.first = nn.Conv2d(3, width, 3, padding=1)
        channels, skips = width, [width]
        down: list[Block] = []
        for level, multiple in enumerate(multiples):
            for _ in range(depth):
                attends = side >> level == _ATTENDED
                down.append(Block(channels, multiple * width, 4 * width, attends=attends))
                channels = multiple * width
                skips.append(channels)
            if level < len(multiples) - 1:
                down.append(Block(channels, channels, 4 * width, resample="down"))
                skips.append(channels)
        self.down = nn.ModuleList(down)
        middle = [Block(channels, channels, 4 * width, attends=first) for first in (True, False)]
        self.middle = nn.ModuleList(middle)
        up: list[Block] = []
        for level, multiple in reversed(list(enumerate(multiples))):
            for number in range(depth + 1):
                attends = side >> level == _ATTENDED and number == depth
                inputs = channels + skips.pop()
                up.append(Block(inputs, multiple * width, 4 * width, attends=attends))
                channels = multiple * width
            if level:
                up.append(Block(channels, channels, 4 * width, resample="up"))
        self.up = nn.ModuleList(up)
        self.norm = _norm(channels)
        self.last = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        half = self.width // 2
        rates = torch.exp(torch.arange(half, device=x.device) * (-math.log(10_000) / (half - 1)))
        angles = labels.float()[:, None] * rates
        enter, leave = self.embed
        e = leave(F.silu(enter(torch.cat([angles.sin(), angles.cos()], 1))))
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
        return out


class Block(nn.Module):
    """A residual block, resampled before its first convolution, and attention behind it."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        embedding: int,
        resample: Literal["", "down", "up"] = "",
        attends: bool = False,
    ) -> None:
        super().__init__()
        self.resample = resample
        self.norm1 = _norm(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.shift = nn.Linear(embedding, outputs)
        self.norm2 = _norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        same = inputs == outputs and not resample
        self.skip = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1)
        self.attention = Attention(outputs) if attends else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv1(self._resampled(F.silu(self.norm1(x))))
        h = h + self.shift(F.silu(embedding))[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        out: Tensor = self.attention((self.skip(self._resampled(x)) + h) / math.sqrt(2))
        return out

    def _resampled(self, x: Tensor) -> Tensor:
        if self.resample == "down":
            return F.avg_pool2d(x, 2)
        return F.interpolate(x, scale_factor=2) if self.resample == "up" else x


class Attention(nn.Module):
    """One head over all places of a map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.maps = nn.ModuleList([Mix(channels) for _ in range(4)])  # query, key, value, out

    def forward(self, x: Tensor) -> Tensor:
        places = self.norm(x).flatten(2).transpose(1, 2)
        query, key, value, leave = self.maps
        seen = F.scaled_dot_product_attention(query(places), key(places), value(places))
        out: Tensor = leave(seen).transpose(1, 2).view_as(x)
        return (x + out) / math.sqrt(2)


class Mix(nn.Module):
    """A linear map of channels whose weights are stored as (inputs, outputs)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(channels // 4, 32), channels, eps=1e-6)
