"""What the pixel filters share."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raygrid.core.images import Images, to_uint8
from raygrid.core.lazy import torch
from raygrid.core.registry import require
from raygrid.defenses.base import Defense, FitContext

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class PixelFilter(Defense):
    """Base of fixed changes of stored images, each image by itself and always in the same way.

    The ISS code has a switch for `at_test` too; published numbers are without.
    """

    at_test: bool = False  # whether test images are filtered too

    @abstractmethod
    def change(self, pixels: Tensor) -> Tensor:
        """The filter itself: uint8 (n, C, H, W) to the same, on the same device or the CPU."""

    def purify(self, images: Images, fit_context: FitContext) -> Images:
        # Parts stay in the processor's cache: several times as fast as a whole set, in less memory.
        parts = images.pixels.split(1000)
        return images.with_pixels(torch.cat([self.change(part) for part in parts]))

    def view(self, x: Tensor) -> Tensor:
        """What `purify` makes of images, rounded to whole levels, where `at_test` asks for it.

        Rounding and filters have no gradient worth following: that of the identity stands in.
        """
        if not self.at_test:
            return x
        with torch.autocast(x.device.type, enabled=False):
            changed = self.change(to_uint8(x.detach())).to(x.device).float().div_(255)
        return changed + (x - x.detach())


def require_odd(kernel: int, least: int = 1) -> None:
    """Refuse sides that have no center pixel."""
    odd = kernel % 2 == 1 and least <= kernel <= 31
    require(odd, f"kernel is {kernel}, allowed are odd numbers from {least} to 31")
