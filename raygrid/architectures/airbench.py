"""The network of the fastest known CIFAR-10 trainings, for victims in minutes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, ClassVar, Literal

from raygrid.architectures.base import ARCHITECTURES, Architecture, Network
from raygrid.core.images import Images
from raygrid.core.lazy import nn, torch
from raygrid.core.registry import Card, require
from raygrid.core.seeds import Stream, forked

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

PATCH = 2
EDGE = PATCH * PATCH * 3
"""Values of a patch, and so the number of its principal directions."""
FLOOR = 5e-4
"""Added to the variance along a direction before it is divided by."""
SAMPLE = 5000
"""Training images whose patches are whitened."""


@ARCHITECTURES.register("airbench")
@dataclass(frozen=True, kw_only=True)
class AirBench(Architecture):
    """Whitening, then three blocks of two 3x3 convolutions with pooling between, and GELU.

    The first layer, 2x2 without padding, has 24 fixed filters and a learned bias: the principal
    directions of 2x2 patches, each divided by its standard deviation, and their negatives.
    `photos` takes the patches of two natural photographs, `train` those of the training set that
    the network is given. `none`: ordinary learned filters. Convolutions start as the identity on
    their first inputs, batch norm has no learned scale.
    """

    card = Card(
        paper="Jordan 2024 (94% on CIFAR-10 in 3.29 Seconds on a Single GPU)",
        code="KellerJordan/cifar10-airbench@f1c599c",
        notes="the original whitens the first 5,000 training images. After a defense that flattens "
        "them (grayscale) that divides by next to nothing along colors, which test images still "
        "have; so the default are fixed filters. widths=128:384:384 is its airbench95",
    )
    sizes: ClassVar[tuple[int, int]] = (16, 64)
    gflop: ClassVar[float] = 0.2363
    stand_in: ClassVar[str] = "small_airbench"

    widths: str = "64:256:256"  # channels of the three blocks
    whiten: Literal["photos", "train", "none"] = "photos"

    def __post_init__(self) -> None:
        parts = self.widths.split(":")
        good = len(parts) == 3 and all(p.isdecimal() and 1 <= int(p) <= 2048 for p in parts)
        require(
            good,
            f"widths is {self.widths!r}, allowed are three numbers from 1 to 2048 as 64:256:256",
        )

    def body(self, image_size: int) -> tuple[nn.Module, int]:
        first: nn.Module = nn.Conv2d(3, 2 * EDGE, PATCH)
        if self.whiten != "none":
            first = Whitening(photo_filters())
        layers, inputs = [first, nn.GELU()], 2 * EDGE
        for width in map(int, self.widths.split(":")):
            layers += _block(inputs, width)
            inputs = width
        return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten()), inputs

    def build(self, classes: int, image_size: int, seed: int) -> Network:
        network = super().build(classes, image_size, seed)
        with forked(seed):
            network.head = ScaledLinear(network.width, classes)
        return network

    def adapt(self, network: Network, images: Images, seed: int) -> None:
        if self.whiten != "train":
            return
        order = torch.randperm(len(images), generator=Stream("whiten", (seed,)).generator("rows"))
        chosen = images.floats(order[:SAMPLE].to(images.pixels.device))
        first = network.body[0]  # type: ignore[index]
        normalized = network.normalize.to(chosen.device)(chosen)
        first.filters.copy_(whitening(patches_of(normalized)))


class Whitening(nn.Module):
    """A 2x2 convolution whose filters are fixed: buffer `filters` (24, 3, 2, 2), a learned bias."""

    def __init__(self, filters: Tensor) -> None:
        super().__init__()
        self.register_buffer("filters", torch.empty(filters.shape).copy_(filters))
        self.bias = nn.Parameter(torch.zeros(len(filters)))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.filters, self.bias)  # type: ignore[arg-type]


class ScaledLinear(nn.Linear):
    """A linear layer without bias whose output is divided by the number of its inputs.

    Its weights start with a standard deviation of 1.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        with torch.no_grad():
            self.weight.div_(self.weight.std().clamp_min(1e-12))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / self.in_features


class ShiftedNorm(nn.BatchNorm2d):
    """Batch norm with a learned bias and no learned scale; the running ones move by 0.4 a step."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-12, momentum=0.4, affine=False)
        self.bias = nn.Parameter(torch.zeros(channels))  # which torch adds if it is there


class IdentityConv(nn.Conv2d):
    """A 3x3 convolution without bias that hands on its first inputs until it has learned."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1, bias=False)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        with torch.no_grad():
            nn.init.dirac_(self.weight[: self.in_channels])


def _block(inputs: int, outputs: int) -> list[nn.Module]:
    """Halves the side."""
    first, second = IdentityConv(inputs, outputs), IdentityConv(outputs, outputs)
    reduced = [first, nn.MaxPool2d(2), ShiftedNorm(outputs), nn.GELU()]
    return [*reduced, second, ShiftedNorm(outputs), nn.GELU()]


def whitening(patches: Tensor) -> Tensor:
    """Filters (24, 3, 2, 2) that turn 2x2 patches of images into uncorrelated values of sd 1.

    patches: float32 (n, 12), see `patches_of`. The first 12 are the principal directions, each
    divided by sqrt(its variance + 5e-4), the others their negatives. Images without any variance
    get directions that are all divided by the same number.
    """
    variances, directions = torch.linalg.eigh(covariance_of(patches))
    scaled = directions / variances.clamp_min(0).add(FLOOR).sqrt()
    filters = scaled.T.reshape(EDGE, 3, PATCH, PATCH).float()
    return torch.cat([filters, -filters])


def patches_of(images: Tensor) -> Tensor:
    """All 2x2 patches of images (n, 3, H, W): float32 (patches, 12)."""
    corners = images.unfold(2, PATCH, 1).unfold(3, PATCH, 1)
    return corners.permute(0, 2, 3, 1, 4, 5).reshape(-1, EDGE)


def covariance_of(rows: Tensor) -> Tensor:
    """float64 (d, d) of float rows (n, d)."""
    centered = (rows - rows.mean(0)).cpu()
    parts = (part.double() for part in centered.split(2**18))
    total = sum((part.T @ part for part in parts), torch.zeros(EDGE, EDGE, dtype=torch.float64))
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
