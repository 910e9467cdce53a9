"""Median filter of the stored images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from raygrid.core.lazy import torch
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card
from raygrid.defenses.base import DEFENSES
from raygrid.defenses.common.filters import PixelFilter, require_odd

if TYPE_CHECKING:
    from torch import Tensor


@DEFENSES.register("median_filter")
@dataclass(frozen=True, kw_only=True)
class MedianFilter(PixelFilter):
    """Each value becomes the median of the square around it; the border's edge is repeated.

    A single changed pixel vanishes, whatever its color.
    """

    card = Card(
        paper="Yu et al. 2024 (D-VAE) names it as partly effective; no numbers",
        code="liuzrcc/ImageShortcutSqueezing",
        notes="borders as OpenCV's median has them",
        cost="20 seconds for 50,000 images of 32 pixels",
    )
    idle: ClassVar[tuple[Mapping[str, Scalar], ...]] = ({"kernel": 1},)

    kernel: int = 3  # side of the square, pixels, odd

    def __post_init__(self) -> None:
        require_odd(self.kernel)

    def change(self, pixels: Tensor) -> Tensor:
        from scipy.ndimage import median_filter

        size = (1, 1, self.kernel, self.kernel)
        return torch.from_numpy(median_filter(pixels.cpu().numpy(), size=size, mode="nearest"))
