"""Filters over a square of pixels around each pixel, channel by channel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray

from raygrid.data import Images
from raygrid.registry import require

Array = NDArray[Any]


def filtered(images: Images, change: Callable[[Array], Array]) -> Images:
    """Put uint8 arrays (n, C, H, W) through `change`, some images at a time."""
    parts = [torch.from_numpy(change(p.cpu().numpy())) for p in images.pixels.split(5000)]
    return images.with_pixels(torch.cat(parts))


def require_odd(kernel: int) -> None:
    """Refuse sides that have no center pixel."""
    odd = kernel % 2 == 1 and 1 <= kernel <= 31
    require(odd, f"kernel is {kernel}, allowed are odd numbers from 1 to 31")
