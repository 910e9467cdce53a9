"""Random sharpening and frequency filtering (RSK and FF), against convolution-based poisons."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raygrid.core import draws
from raygrid.core.lazy import nn, torch
from raygrid.core.registry import Card, Combination, require
from raygrid.defenses.base import DEFENSES, Defense

if TYPE_CHECKING:
    from torch import Tensor

_SPREAD = 0.1
"""Standard deviation of the entries of a kernel."""


@DEFENSES.register("sharpen_dct")
@dataclass(frozen=True, kw_only=True)
class SharpenDct(Defense):
    """Each image is sharpened by a 3x3 kernel of its own, then loses its high frequencies.

    The kernel's center c is N(center, 0.1^2), its four neighbors are each -N((c - 1) / 4, 0.1^2),
    its corners 0; without padding, clipped to [0, 1]. Of the two-dimensional cosine transform the
    lowest `kept` of rows and columns stay, clipped again. The rim of one pixel is black.
    """

    card = Card(
        paper="Kim and Sandoval-Segura 2024, Learning from Convolution-based Unlearnable Datasets",
        code="aseriesof-tubes/RSK@911680e (augments.py)",
        cost="two small matrix products a batch",
        notes="there images are sharpened before they are cropped, so that the crop pads 30 pixels "
        "to 32; here the hook comes after the crop and the rim is what is lost. Training images "
        "alone, which are normalized there",
    )

    center: float = 2.5  # mean of the kernel's center
    kept: float = 0.3  # share of the rows and columns of the transform

    def __post_init__(self) -> None:
        require(1 <= self.center <= 10, f"center is {self.center}, allowed are 1 to 10")
        require(0 < self.kept <= 1, f"kept is {self.kept}, allowed are numbers above 0 up to 1")

    def augment(self, x: Tensor, y: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        kernels = self.kernels(draws.randn((len(x), 5), rng, x.device))
        sharp = sharpened(x, kernels).clamp_(0, 1)
        smooth = low_pass(sharp, self.kept).clamp_(0, 1)
        return nn.functional.pad(smooth, [1] * 4), y

    def kernels(self, normal: Tensor) -> Tensor:
        """Centers and the four neighbors (above, left, right, below), (n, 5), from N(0, 1)."""
        center = self.center + _SPREAD * normal[:, :1]
        neighbors = (center - 1) / 4 + _SPREAD * normal[:, 1:]
        return torch.cat([center, -neighbors], 1)

    def skip(self, combination: Combination) -> str | None:
        if int((combination.image_size - 2) * self.kept) < 1:
            return f"kept={self.kept} leaves nothing of images of {combination.image_size} pixels"
        return super().skip(combination)


def sharpened(x: Tensor, kernels: Tensor) -> Tensor:
    """Each image (n, C, H, W) under its kernel (n, 5), without its rim: (n, C, H - 2, W - 2)."""
    center, above, left, right, below = kernels[:, :, None, None, None].unbind(1)
    out = center * x[..., 1:-1, 1:-1]
    out += above * x[..., :-2, 1:-1] + left * x[..., 1:-1, :-2]
    out += right * x[..., 1:-1, 2:] + below * x[..., 2:, 1:-1]
    return out


def low_pass(x: Tensor, kept: float) -> Tensor:
    """What the lowest share of rows and columns of the orthonormal cosine transform make alone."""
    with torch.autocast(x.device.type, enabled=False):
        tall, wide = (_onto(side, int(side * kept), x.device) for side in x.shape[-2:])
        return tall @ x @ wide


@functools.cache  # else every batch on a GPU would wait for the host to send it
def _onto(side: int, count: int, device: torch.device) -> Tensor:
    """The projection (side, side) onto the `count` lowest frequencies."""
    places = (torch.arange(side, dtype=torch.float64) + 0.5) * math.pi / side
    waves = torch.cos(torch.arange(count, dtype=torch.float64)[:, None] * places)
    waves = waves / waves.norm(dim=1, keepdim=True)
    return (waves.T @ waves).float().to(device)
