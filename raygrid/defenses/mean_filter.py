"""Mean filter of the stored images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from raygrid.core.lazy import functional, torch
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card
from raygrid.defenses.base import DEFENSES
from raygrid.defenses.common.filters import PixelFilter, require_odd

if TYPE_CHECKING:
    from torch import Tensor


@DEFENSES.register("mean_filter")
@dataclass(frozen=True, kw_only=True)
class MeanFilter(PixelFilter):
    """Each value becomes the mean of the square around it, rounded half up.

    Beyond the border the image is mirrored without repeating its edge.
    """

    card = Card(
        paper="Yu et al. 2024 (D-VAE) names it as partly effective; no numbers",
        code="liuzrcc/ImageShortcutSqueezing",
        notes="the ISS code filters float CHW arrays, across the wrong axes; this is the order "
        "of AVATAR's code, on the stored images",
        cost="seconds for 50,000 images",
    )
    idle: ClassVar[tuple[Mapping[str, Scalar], ...]] = ({"kernel": 1},)

    kernel: int = 3  # side of the square, pixels, odd

    def __post_init__(self) -> None:
        require_odd(self.kernel)

    def change(self, pixels: Tensor) -> Tensor:
        half, count = self.kernel // 2, self.kernel**2
        padded = functional.pad(pixels.float(), (half,) * 4, mode="reflect")
        sums = functional.avg_pool2d(
            padded, self.kernel, 1, divisor_override=1
        )  # whole numbers, exact
        return ((2 * sums.int() + count) // (2 * count)).to(torch.uint8)
