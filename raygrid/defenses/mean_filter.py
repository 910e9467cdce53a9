"""Mean filter of the stored images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raygrid.data import Images
from raygrid.defenses.base import DEFENSES, Defense, Workshop
from raygrid.defenses.box_filters import filtered, require_odd
from raygrid.registry import Card


@DEFENSES.register("mean_filter")
@dataclass(frozen=True, kw_only=True)
class MeanFilter(Defense):
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

    kernel: int = 3  # side of the square, pixels, odd

    def __post_init__(self) -> None:
        require_odd(self.kernel)

    def purify(self, images: Images, workshop: Workshop) -> Images:
        from scipy.ndimage import uniform_filter

        size = (1, 1, self.kernel, self.kernel)

        def mean(pixels: NDArray[Any]) -> NDArray[Any]:
            exact = uniform_filter(pixels.astype(np.float64), size=size, mode="mirror")
            # running sums leave errors of 1e-13, which must not decide what is a half
            return np.floor(exact.round(6) + 0.5).astype(np.uint8)

        return filtered(images, mean)
