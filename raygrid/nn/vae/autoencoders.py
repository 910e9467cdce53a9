"""Sizes of auto-encoders with a bounded rate, and what these make of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

LATENT_WIDTH = 256
DEEP_FROM = 112  # pixels a side, from which features have stride 8
SHRINKS = (1, 2, 4, 8, 16)

LatentTable = Literal["spatial", "flat"]


@dataclass(frozen=True)
class VaeSize:
    """The size of an auto-encoder.

    classes: of the perturbation branch; 0 for none. deep: features of stride 8 and width 512 for
    224-pixel images, else of stride 2 and width 128. spatial: a whole map for each class, else one
    vector. width: channels of a plain bottleneck, 0 for the variational one. shrink: all other
    channels are divided by it, for few images on a small machine; the papers' networks have 1.
    """

    side: int
    classes: int = 0
    deep: bool = False
    spatial: bool = True
    width: int = 0
    shrink: int = 1

    @classmethod
    def disentangling(
        cls, side: int, classes: int, table: LatentTable, deep: bool = True, shrink: int = 1
    ) -> VaeSize:
        """That of a D-VAE for images of `side` pixels; deep: as far as they are large enough."""
        large = side >= DEEP_FROM
        spatial = table == "spatial" and not large
        return cls(side, classes, deep and large, spatial, shrink=shrink)

    @classmethod
    def reconstructing(cls, side: int, width: int = 0, shrink: int = 1) -> VaeSize:
        """That of an auto-encoder without classes for images of `side` pixels."""
        return cls(side, deep=side >= DEEP_FROM, width=width, shrink=shrink)

    @property
    def channels(self) -> int:
        return (512 if self.deep else 128) // self.shrink

    @property
    def latent(self) -> int:
        return LATENT_WIDTH // self.shrink

    @property
    def drawn(self) -> int:
        """Normal numbers that the latent of one image takes."""
        return 0 if self.width else self.latent * self.grid**2

    @property
    def grid(self) -> int:
        """Side of the feature map."""
        return self.side // (8 if self.deep else 2)


def misfit(name: str, side: int) -> str | None:
    """Why auto-encoders cannot take images of `side` pixels, or None; name: of the method."""
    stride = 8 if side >= DEEP_FROM else 2
    return f"{name} takes sides divisible by {stride}, not {side}" if side % stride else None


def relative_cost(shrink: int) -> float:
    """Time of a network whose channels are divided by `shrink` against that of the whole one.

    Measured on one CPU core, 32 images of 32 pixels an update: 0.30, 0.12, 0.075 for 2, 4, 8.
    """
    return max(0.05, shrink**-1.5)


@dataclass
class Parts:
    """What an auto-encoder makes of images x (n, 3, S, S) in [0, 1].

    image: reconstruction in [0, 1]. perturbation: unbounded, None without the branch.
    rate: Kullback-Leibler divergence in nats for each position of the feature map, a scalar.
    """

    image: Tensor
    perturbation: Tensor | None
    rate: Tensor


def rate_loss(rate: Tensor, limit: float) -> Tensor:
    """The weighted rate above its limit; below it a constant, so that nothing pulls."""
    weight = 0.01 if limit > 0.99 else 0.5
    return weight * rate.clamp_min(limit)
