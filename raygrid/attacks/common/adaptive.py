"""What a defended victim sees: changes of images that the gradient of an attack passes through."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from raygrid.core.images import to_uint8
from raygrid.core.lazy import torch
from raygrid.nn.augment.jpeg import recode
from raygrid.nn.augment.ueraser import Erasing

if TYPE_CHECKING:
    from torch import Tensor

Transform: TypeAlias = "Callable[[Tensor, torch.Generator], Tensor]"
"""(images float32 (n, C, H, W), CPU generator) -> images, differentiable in them."""


def luminance(x: Tensor, rng: torch.Generator) -> Tensor:
    """0.2989 R + 0.587 G + 0.114 B in all three channels."""
    red, green, blue = x.unbind(1)
    gray = 0.2989 * red + 0.587 * green + 0.114 * blue
    return gray[:, None].expand_as(x)


def through_jpeg(x: Tensor, rng: torch.Generator) -> Tensor:
    """JPEG at a quality drawn from 10 to 29 for the batch; its gradient is that of the identity."""
    quality = int(torch.randint(10, 30, (), generator=rng))
    with torch.no_grad():
        decoded = recode(to_uint8(x), quality).to(x.device).float() / 255
    return x + (decoded - x).detach()


def through_erasing(x: Tensor, rng: torch.Generator) -> Tensor:
    """One draw of UEraser's augmentation, as the victim's own training makes it."""
    return Erasing().erase(x.clamp(0, 1), rng)


TRANSFORMS: dict[str, Transform] = {
    "grayscale": luminance,
    "jpeg": through_jpeg,
    "ueraser": through_erasing,
}
