"""From image files to one uint8 tensor, in parallel threads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from raygrid.core.errors import DataError
from raygrid.core.lazy import np, torch
from raygrid.storage.pictures import as_rgb, opened

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor


@dataclass(frozen=True)
class Resizing:
    """How an image comes to `side` x `side` pixels.

    resize: its shorter side is scaled to this many pixels, bilinear with antialiasing, and the
    center is cut out. None: it must have the size already.
    """

    side: int
    resize: int | None = None

    def __call__(self, image: Image.Image, path: Path) -> Image.Image:
        from PIL import Image

        if self.resize is not None:
            short = min(image.size)
            width, height = (round(edge * self.resize / short) for edge in image.size)
            image = image.resize((width, height), Image.Resampling.BILINEAR)
            left, top = (width - self.side) // 2, (height - self.side) // 2
            return image.crop((left, top, left + self.side, top + self.side))
        if image.size != (self.side, self.side):
            raise DataError(
                f"{path} has {image.width}x{image.height} pixels, expected {self.side}x{self.side}:"
                f" all images need one size"
            )
        return image


def decode(files: Sequence[Path], fit: Resizing) -> Tensor:
    """Read image files in order: uint8 (N, 3, side, side).

    Raises DataError that names the file if one is missing, truncated, no image, or does not fit.
    """
    out = np.empty((len(files), 3, fit.side, fit.side), np.uint8)

    def read(position: int) -> None:
        path = files[position]
        with opened(path) as image:
            out[position] = np.asarray(fit(as_rgb(image, path), path)).transpose(2, 0, 1)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(read, range(len(files))):
            pass
    return torch.from_numpy(out)
