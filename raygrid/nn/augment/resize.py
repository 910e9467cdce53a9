"""Random resized crops of a batch, each image with its own box.

Resizing is two products with interpolation matrices: on a CPU twice as fast as gathering, and
its gradient has no scattered sums, so it is the same on every run on a GPU too.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raygrid.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

BOX_TRIES = 10
BOX_DRAWS = 2 * BOX_TRIES + 2
"""Uniform draws that one box takes."""


@dataclass(frozen=True)
class Boxes:
    """Parts of images: corner and extent int64 (N, 2) as (row, column), in pixels."""

    corner: Tensor
    extent: Tensor


def boxes_of(
    draws: Tensor, size: Sequence[int], scale: tuple[float, float], ratio: tuple[float, float]
) -> Boxes:
    """Boxes of a random share `scale` of the area and a log-uniform `ratio` width / height.

    The rule of torchvision's RandomResizedCrop: the first of ten tries that fits into the image;
    the whole image, cut to the nearest allowed ratio, if none does. draws: uniform in [0, 1),
    float (N, BOX_DRAWS).
    """
    n = len(draws)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    area = size[0] * size[1] * (scale[0] + (scale[1] - scale[0]) * draws[:, :BOX_TRIES])
    aspect = torch.exp(low + (high - low) * draws[:, BOX_TRIES : 2 * BOX_TRIES])
    tries = torch.stack([(area / aspect).sqrt(), (area * aspect).sqrt()], -1).round().long()
    fits = (tries > 0).all(-1) & (tries[..., 0] <= size[0]) & (tries[..., 1] <= size[1])
    first = fits.int().argmax(1)
    chosen = tries.gather(1, first.view(n, 1, 1).expand(n, 1, 2))[:, 0]
    # Sizes stay numbers: as tensors they would be sent to the device in every step.
    sides = zip(chosen.unbind(1), _fallback(tuple(size), ratio), strict=True)
    extent = torch.stack([torch.where(fits.any(1), own, whole) for own, whole in sides], 1)
    room = torch.stack([full - own for full, own in zip(size, extent.unbind(1), strict=True)], 1)
    corner = (draws[:, 2 * BOX_TRIES :] * (room + 1)).floor().long()
    return Boxes(torch.minimum(corner, room), extent)


@functools.cache
def _fallback(size: tuple[int, ...], ratio: tuple[float, float]) -> tuple[int, int]:
    """The largest extent of an allowed ratio."""
    height, width = torch.tensor(size)
    wide = torch.minimum(width, (height * ratio[1]).round().long())
    tall = torch.minimum(height, (width / ratio[0]).round().long())
    return int(tall), int(wide)


def crop_resize(x: Tensor, boxes: Boxes, flips: Tensor) -> Tensor:
    """Cut out the boxes, enlarge them bilinearly to the size of the images, mirror some.

    x: float (N, C, H, W); flips: bool (N,). Half-pixel centers, nothing from outside the box.
    Boxes are never larger than the image, so nothing is shrunk and no antialiasing is needed.
    """
    n, channels, height, width = x.shape
    never = torch.zeros_like(flips)
    rows = _weights(boxes.corner[:, 0], boxes.extent[:, 0], height, never, x.dtype)
    cols = _weights(boxes.corner[:, 1], boxes.extent[:, 1], width, flips, x.dtype)
    with torch.autocast(x.device.type, enabled=False):
        wide = x.reshape(n, channels * height, width) @ cols.transpose(1, 2)
        return rows.unsqueeze(1) @ wide.view(n, channels, height, width)


def _weights(
    corner: Tensor, extent: Tensor, side: int, flips: Tensor, dtype: torch.dtype
) -> Tensor:
    """Share (N, side, side) of each source pixel (last) in each output pixel of one axis."""
    pixels = torch.arange(side, device=corner.device, dtype=dtype)
    last = (extent - 1).to(dtype)[:, None]
    at = (pixels + 0.5) * (extent.to(dtype)[:, None] / side) - 0.5
    at = torch.minimum(at.clamp_min(0.0), last)
    at = torch.where(flips[:, None], last - at, at) + corner[:, None]
    return (1 - (at[:, :, None] - pixels).abs()).clamp_min_(0.0)
