"""The JPEG codec on stored images."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from raygrid.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


def recode(pixels: Tensor, quality: int) -> Tensor:
    """Encode and decode uint8 (N, C, H, W) image by image, baseline JPEG with 4:2:0 chroma.

    On the CPU, a thousand images at a time.
    """
    from torchvision.io import decode_jpeg, encode_jpeg

    out = torch.empty_like(pixels, device="cpu")
    with warnings.catch_warnings():
        # Torchvision gives its codec up for torchcodec, which has no encoder for images yet; it is
        # three times as fast as Pillow at this size, and the bytes are the same.
        warnings.simplefilter("ignore", DeprecationWarning)
        for start in range(0, len(pixels), 1000):
            files = encode_jpeg(list(pixels[start : start + 1000].cpu().contiguous()), quality)
            for row, file in enumerate(files, start):
                out[row] = decode_jpeg(file)
    return out
