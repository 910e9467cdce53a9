"""DDPM++, the network of score-SDE's variance-preserving checkpoints.

Song et al. 2021, "Score-Based Generative Modeling through Stochastic Differential Equations",
appendix H; yang-song/score_sde_pytorch, `configs/vp/cifar10_ddpmpp*_continuous`. Residual blocks
of BigGAN without FIR filters, sums scaled by 1/sqrt(2). A label is 999 times the time in [0, 1].
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raygrid.nn.diffusion.unets import Family, Layout, phases

DDPMPP_LAYOUTS = (
    Layout((1, 2, 2, 2), 8, (16,)),  # deep: CIFAR-10, and CIFAR-100 and SVHN of AVATAR's authors
    Layout((1, 2, 2, 2), 4, (16,)),  # not deep
    Layout((2, 2, 2), 4, (16,)),  # `cifar100_ddpmpp` of AVATAR's authors
)
"""Of published checkpoints; the width is 128."""


class MapAttention(nn.Module):
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


def _waves(labels: Tensor, width: int) -> Tensor:
    angles = phases(labels, width // 2, width // 2 - 1)
    return torch.cat([angles.sin(), angles.cos()], 1)


DDPMPP = Family(
    waves=_waves,
    norm=_norm,
    attention=MapAttention,
    scales=False,
    root=math.sqrt(2),
    bridged=True,
    throughout=False,
    outputs=3,
)
