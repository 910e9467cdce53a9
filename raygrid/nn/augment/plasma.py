"""Plasma: random smooth maps by the diamond-square rule, and the changes of images they make.

The rule is kornia's up to 0.8.2 (`contrib/diamond_square.py` of 0.6.12, which APBench pins). It is
not even: the first nine values are divided by 3 once more than a mean asks for, and a border point
counts its inner neighbor twice and then four thirds of the mean. kornia 0.9 mends both.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from raygrid.core import draws
from raygrid.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_BORDER = 4 / 3
"""What a mean over four neighbors is multiplied with at the border."""


def brightened(x: Tensor, maps: Tensor, intensity: Tensor) -> Tensor:
    """Adds (2 map - 1) times the intensity, clipped to [0, 1]; x, maps (n, C, H, W), (n,)."""
    return (x + (2 * maps - 1) * intensity.view(-1, 1, 1, 1)).clamp(0, 1)


def contrasted(x: Tensor, maps: Tensor) -> Tensor:
    """Stretches around one half by 4 times the map, clipped to [0, 1]; both (n, C, H, W)."""
    return ((x - 0.5) * (4 * maps) + 0.5).clamp(0, 1)


def plasma(like: Tensor, roughness: Tensor, rng: torch.Generator) -> Tensor:
    """A map for every channel of square images (n, C, H, H); roughness float32 (n,) in [0, 1].

    Values are about 0 to 1 but not held there; nothing of the images matters.
    """
    n, channels, side, _ = like.shape
    many = (n * channels,)

    def draw(height: int, width: int) -> Tensor:
        return draws.rand((*many, height, width), rng, like.device)

    depth = max(math.ceil(math.log2(max(side - 1, 2))) - 1, 0)
    maps = first_nine(draw(2, 2))
    rough = roughness.repeat_interleave(channels).view(-1, 1, 1)
    share = torch.ones_like(rough)
    for _ in range(depth):
        share = share * rough
        size = 2 * maps.shape[-1] - 1
        maps = doubled(maps, draw(size, size), share)
    return maps[:, :side, :side].reshape(like.shape)


def first_nine(corners: Tensor) -> Tensor:
    """The map (n, 3, 3) that starts from corners (n, 2, 2)."""
    (a, b), (c, d) = (row.unbind(1) for row in corners.unbind(1))
    center = (a + b + c + d) / 4
    # The point below takes the corner b, not c, of which it is a neighbor: so it is in kornia.
    rows = (a, a + b + center, b, a + c + center, center, b + d + center, c, b + d + center, d)
    return torch.stack(rows, 1).view(-1, 3, 3) / 3


def doubled(maps: Tensor, noise: Tensor, share: Tensor) -> Tensor:
    """One step: (n, s, s) to (n, 2s - 1, 2s - 1).

    New points are the mean of their neighbors with weight 1 - share, and noise of that size with
    weight share, (n, 1, 1): first the centers of squares, then the points between.
    """
    out = torch.empty_like(noise)
    out[:, ::2, ::2] = maps
    noise, keep = noise * share, 1 - share
    corners = maps[:, :-1] + maps[:, 1:]
    centers = keep * (corners[..., :-1] + corners[..., 1:]) / 4 + noise[:, 1::2, 1::2]
    out[:, 1::2, 1::2] = centers
    out[:, ::2, 1::2] = keep * _between(maps, centers) + noise[:, ::2, 1::2]
    turned = _between(maps.transpose(1, 2), centers.transpose(1, 2)).transpose(1, 2)
    out[:, 1::2, ::2] = keep * turned + noise[:, 1::2, ::2]
    return out


def _between(maps: Tensor, centers: Tensor) -> Tensor:
    """Means of the points to the left and right, above and below: (n, s, s - 1)."""
    above = torch.cat([centers[:, :1], centers], 1)
    below = torch.cat([centers, centers[:, -1:]], 1)
    mean = (maps[..., :-1] + maps[..., 1:] + above + below) / 4
    mean[:, 0] *= _BORDER
    mean[:, -1] *= _BORDER
    return mean
