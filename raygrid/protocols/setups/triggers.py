"""The triggers of a set-up: small patches that a backdoor puts on its target at test time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from raygrid.core.errors import DataError
from raygrid.core.images import Trigger
from raygrid.core.lazy import torch
from raygrid.core.seeds import Stream

if TYPE_CHECKING:
    from torch import Tensor

PATCH_MARGINS = {"clbd": 0, "htbd": 5}
"""Pixels between a patch and the bottom right corner of the image."""


def triggers(
    size: int, side: int, patterns: Mapping[str, Tensor] | None = None
) -> dict[str, Trigger]:
    """The patches, `size` pixels wide, for square images of `side` pixels.

    patterns: those of the benchmark; our own noise, gray and in color, without them. Raises
    DataError if a patch leaves the image.
    """
    found = {}
    for name, margin in PATCH_MARGINS.items():
        edge = side - size - margin
        if size < 1 or edge < 0:
            raise DataError(
                f"the trigger {name} of {size} pixels, {margin} from the edge, "
                f"leaves the {side}x{side} image"
            )
        pattern = _own(name, size) if patterns is None else resized(patterns[name], size)
        found[name] = Trigger(pattern, edge, edge)
    return found


def _own(name: str, size: int) -> Tensor:
    shape = (1 if name == "clbd" else 3, size, size)
    noise = torch.rand(shape, generator=Stream("trigger", (name, size)).generator())
    return noise.mul(256).floor().to(torch.uint8).expand(3, size, size).contiguous()


def resized(pattern: Tensor, size: int) -> Tensor:
    """A patch, uint8 (3, h, w), at another size as Pillow's bilinear filter makes it."""
    from PIL import Image

    if pattern.shape[-1] == size:
        return pattern
    image = Image.fromarray(pattern.permute(1, 2, 0).numpy())
    scaled = image.resize((size, size), Image.Resampling.BILINEAR)
    values = torch.frombuffer(bytearray(scaled.tobytes()), dtype=torch.uint8)
    return values.view(size, size, 3).permute(2, 0, 1).contiguous()
