"""Padded random crop and flip: the standard augmentation of small images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from raygrid.core import draws
from raygrid.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class CropFlip:
    """Pad, crop back to the size at a random place, flip left to right with probability 1/2.

    padding: pixels on each side (0: no crop). flip: whether to flip at all. border: what the
    padding is, zeros or the image mirrored at its edge (whose pixels are not repeated).
    """

    padding: int = 4
    flip: bool = True
    border: Literal["constant", "reflect"] = "constant"

    def sample(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Offsets int64 (N, 2) in [0, 2 * padding] and flips bool (N,) for a batch (N, C, H, W)."""
        offsets = draws.randint(0, 2 * self.padding + 1, (len(x), 2), generator, x.device)
        flips = draws.rand((len(x),), generator, x.device)
        return offsets, flips < (0.5 if self.flip else 0.0)

    def apply(self, x: Tensor, params: tuple[Tensor, Tensor]) -> Tensor:
        """Crop and flip (N, C, H, W); the value range stays."""
        offsets, flips = params
        n, channels, height, width = x.shape
        p = self.padding
        padded = torch.nn.functional.pad(x, (p, p, p, p), self.border) if p else x
        rows = torch.arange(height, device=x.device) + offsets[:, :1]
        cols = torch.arange(width, device=x.device)
        cols = torch.where(flips[:, None], cols.flip(0), cols) + offsets[:, 1:]
        wide = padded.shape[-1]
        flat = (rows[:, :, None] * wide + cols[:, None, :]).view(n, 1, -1)
        out = padded.flatten(2).gather(2, flat.expand(n, channels, -1))
        return out.view(n, channels, height, width)

    def __call__(
        self, x: Tensor, generator: torch.Generator, mirrored: Tensor | None = None
    ) -> Tensor:
        offsets, flips = self.sample(x, generator)
        return self.apply(x, (offsets, flips if mirrored is None or not self.flip else mirrored))
