"""Gaussian blur of the stored images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from raygrid.core.literals import Scalar
from raygrid.core.registry import Card, require
from raygrid.defenses.base import DEFENSES
from raygrid.defenses.common.filters import PixelFilter, require_odd

if TYPE_CHECKING:
    from torch import Tensor


@DEFENSES.register("gaussian")
@dataclass(frozen=True, kw_only=True)
class Gaussian(PixelFilter):
    """Gaussian filter with reflected borders, rounded to whole levels.

    At the published sigma of 0.1 the weights of a 3x3 kernel are e^-50, 1, e^-50: the identity.
    Sigma 0.5 and 1.0 blur for real (center weight 0.62 and 0.20).
    """

    card = Card(
        paper="Qin et al. 2024 (APBench), table 15",
        code="lafeat/apbench@9a6fb91; liuzrcc/ImageShortcutSqueezing",
        published={
            "cifar10/em_apb/gaussian/resnet18/supervised/apbench/0": 0.1471,
            "cifar10/lsp/gaussian/resnet18/supervised/apbench/0": 0.1861,
            "cifar10/tap/gaussian/resnet18/supervised/apbench/0": 0.0788,
        },
        cost="seconds for 50,000 images",
        notes="the published column repeats `standard`, up to the noise of a run; the blur of "
        "contrastive tables is another one: `random_blur`",
    )
    idle: ClassVar[tuple[Mapping[str, Scalar], ...]] = ({}, {"kernel": 1, "sigma": 1.0})

    kernel: int = 3  # side, pixels, odd
    sigma: float = 0.1  # pixels

    def __post_init__(self) -> None:
        require_odd(self.kernel)
        require(self.sigma > 0, f"sigma is {self.sigma}, allowed are positive numbers")

    def change(self, pixels: Tensor) -> Tensor:
        from torchvision.transforms.v2.functional import gaussian_blur

        return gaussian_blur(pixels, [self.kernel] * 2, [self.sigma] * 2)
