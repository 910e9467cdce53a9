"""The network of the fastest known CIFAR-10 trainings, for victims in minutes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, ClassVar, Literal

from raygrid.architectures.base import ARCHITECTURES, Architecture
from raygrid.core.images import Images
from raygrid.core.lazy import nn, torch
from raygrid.core.registry import Card, require
from raygrid.core.seeds import Stream, forked

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from raygrid.architectures.networks.network import Network

PATCH_SIDE = 2
PATCH_VALUES = PATCH_SIDE * PATCH_SIDE * 3
"""Values of a patch, and so the number of its principal directions."""
VARIANCE_FLOOR = 5e-4
"""Added to the variance along a direction before it is divided by."""
WHITENED_IMAGES = 5000
"""Training images whose patches are whitened."""


@ARCHITECTURES.register("airbench")
@dataclass(frozen=True, kw_only=True)
class AirBench(Architecture):
    """A 2x2 convolution, then three blocks of two 3x3 ones with pooling between, and GELU.

    The first layer, without padding, has 24 filters and a learned bias. `none`: they are learned
    as any others. `photos` and `train` fix them to the principal directions of 2x2 patches, each
    divided by its standard deviation, and their negatives: of two natural photographs, or of the
    training set that the network is given. Convolutions start as the identity on their first
    inputs, batch norm has no learned scale.
    """

    card = Card(
        paper="Jordan 2024 (94% on CIFAR-10 in 3.29 Seconds on a Single GPU)",
        code="KellerJordan/cifar10-airbench@f1c599c",
        notes="the original whitens the first 5,000 training images (whiten=train). After a "
        "defense that flattens them (grayscale) any fixed whitening makes much of colors that "
        "training never shows and test images have: clean + grayscale, measured with "
        "small_airbench, is 10 % with train, 64 % with photos, 79 % with learned filters, the "
        "default. Patches are centered before they are whitened, the original's are not: of its "
        "normalized images they are nearly so. widths=128:384:384 is its airbench95",
    )
    version: ClassVar[int] = 2
    sizes: ClassVar[tuple[int, int]] = (16, 64)
    gflop: ClassVar[float] = 0.2363
    megabytes: ClassVar[float] = 7.9

    widths: str = "64:256:256"  # channels of the three blocks
    whiten: Literal["photos", "train", "none"] = "none"  # what fixes the first filters

    def __post_init__(self) -> None:
        parts = self.widths.split(":")
        good = len(parts) == 3 and all(p.isdecimal() and 1 <= int(p) <= 2048 for p in parts)
        require(
            good,
            f"widths is {self.widths!r}, allowed are three numbers from 1 to 2048 as 64:256:256",
        )

    def body(self, image_size: int) -> tuple[nn.Module, int]:
        from raygrid.architectures.networks.airbench import Whitening, halving_block

        first: nn.Module = nn.Conv2d(3, 2 * PATCH_VALUES, PATCH_SIDE)
        if self.whiten != "none":
            first = Whitening(photo_filters())
        layers, inputs = [first, nn.GELU()], 2 * PATCH_VALUES
        for width in map(int, self.widths.split(":")):
            layers += halving_block(inputs, width)
            inputs = width
        return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten()), inputs

    def build(self, classes: int, image_size: int, seed: int) -> Network:
        from raygrid.architectures.networks.airbench import ScaledLinear

        network = super().build(classes, image_size, seed)
        with forked(seed):
            network.head = ScaledLinear(network.width, classes)
        return network

    def adapt(self, network: Network, images: Images, seed: int) -> None:
        if self.whiten != "train":
            return
        order = torch.randperm(len(images), generator=Stream("whiten", (seed,)).generator("rows"))
        chosen = images.floats(order[:WHITENED_IMAGES].to(images.pixels.device))
        first = network.body[0]  # type: ignore[index]
        normalized = network.normalize.to(chosen.device)(chosen)
        first.filters.copy_(whitening(patches_of(normalized)))


def whitening(patches: Tensor) -> Tensor:
    """Filters (24, 3, 2, 2) that turn 2x2 patches of images into uncorrelated values of sd 1.

    patches: float32 (n, 12), see `patches_of`. The first 12 are the principal directions, each
    divided by sqrt(its variance + 5e-4), the others their negatives. Images without any variance
    get directions that are all divided by the same number.
    """
    variances, directions = torch.linalg.eigh(covariance_of(patches))
    scaled = directions / variances.clamp_min(0).add(VARIANCE_FLOOR).sqrt()
    filters = scaled.T.reshape(PATCH_VALUES, 3, PATCH_SIDE, PATCH_SIDE).float()
    return torch.cat([filters, -filters])


def patches_of(images: Tensor) -> Tensor:
    """All 2x2 patches of images (n, 3, H, W): float32 (patches, 12)."""
    corners = images.unfold(2, PATCH_SIDE, 1).unfold(3, PATCH_SIDE, 1)
    return corners.permute(0, 2, 3, 1, 4, 5).reshape(-1, PATCH_VALUES)


def covariance_of(rows: Tensor) -> Tensor:
    """float64 (d, d) of float rows (n, d)."""
    centered = (rows - rows.mean(0)).cpu()
    parts = (part.double() for part in centered.split(2**18))
    total = sum(
        (part.T @ part for part in parts),
        torch.zeros(PATCH_VALUES, PATCH_VALUES, dtype=torch.float64),
    )
    return total / len(rows)


@cache
def photo_filters() -> Tensor:
    """The filters of the two photographs that scikit-learn ships, at an eighth of their size.

    Each channel at mean 0 and sd 1, as the network's normalized input is.
    """
    from sklearn.datasets import load_sample_images

    with torch.device("cpu"):  # they are kept, so where they are asked for first must not matter
        return whitening(torch.cat([_photo_patches(p) for p in load_sample_images().images]))


def _photo_patches(photo: NDArray[np.uint8]) -> Tensor:
    """Normalized patches of an image uint8 (H, W, 3)."""
    import numpy as np
    from PIL import Image

    image = Image.fromarray(photo)
    small = image.resize((image.width // 8, image.height // 8), Image.Resampling.BOX)
    pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1).float()[None]
    mean, std = pixels.mean((2, 3), keepdim=True), pixels.std((2, 3), keepdim=True)
    return patches_of((pixels - mean) / std)
