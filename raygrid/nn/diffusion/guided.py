"""The network of guided-diffusion's unconditional checkpoint for ImageNet.

Dhariwal and Nichol 2021, "Diffusion Models Beat GANs on Image Synthesis"; openai/guided-diffusion,
`256x256_diffusion_uncond.pt`, which AVATAR's code puts images of 224 pixels through. A label is a
step; the last three channels that come out are variances, which fixed ones stand in for.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raygrid.nn.diffusion.unets import Family, Layout, phases

GUIDED_SIDE = 256
GUIDED_LAYOUTS = (Layout((1, 1, 2, 2, 4, 4), 2, (32, 16, 8)),)
"""Of the published checkpoint; the width is 256."""
_HEAD_CHANNELS = 64  # channels


class HeadwiseAttention(nn.Module):
    """Heads of 64 channels over all places of a map; queries, keys and values head by head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = max(1, channels // _HEAD_CHANNELS)
        self.norm = _norm(channels)
        self.enter = nn.Conv1d(channels, 3 * channels, 1)
        self.leave = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        entered: Tensor = self.enter(self.norm(x).flatten(2))
        split = entered.unflatten(1, (self.heads, 3, -1)).transpose(-1, -2)
        seen = F.scaled_dot_product_attention(*split.unbind(2))
        out: Tensor = x + self.leave(seen.transpose(-1, -2).flatten(1, 2)).view_as(x)
        return out


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels)


def _waves(labels: Tensor, width: int) -> Tensor:
    angles = phases(labels, width // 2, width // 2)
    return torch.cat([angles.cos(), angles.sin()], 1)


GUIDED = Family(
    waves=_waves,
    norm=_norm,
    attention=HeadwiseAttention,
    scales=True,
    root=1.0,
    bridged=False,
    throughout=True,
    outputs=6,
)
