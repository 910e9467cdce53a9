"""The JPEG codec on stored images, and changes of images that a gradient passes through."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from raygrid.data import to_uint8

Transform = Callable[[Tensor, torch.Generator], Tensor]
"""(images float32 (n, C, H, W) in [0, 1], CPU generator) -> images, differentiable in them."""


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


TRANSFORMS: dict[str, Transform] = {"grayscale": luminance, "jpeg": through_jpeg}
