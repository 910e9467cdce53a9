"""JPEG compression of the stored images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from raygrid.core.registry import Card, require
from raygrid.defenses.base import DEFENSES
from raygrid.defenses.common.filters import PixelFilter
from raygrid.nn.augment.jpeg import recode

if TYPE_CHECKING:
    from torch import Tensor


@DEFENSES.register("jpeg")
@dataclass(frozen=True, kw_only=True)
class Jpeg(PixelFilter):
    """Each image is encoded as a baseline JPEG with 4:2:0 chroma and decoded again."""

    card = Card(
        paper="Liu et al. 2023 (ISS); Qin et al. 2024 (APBench)",
        code="liuzrcc/ImageShortcutSqueezing",
        published={
            "cifar10/em_apb/jpeg/resnet18/supervised/apbench/0": 0.8072,
            "cifar10/rem_apb/jpeg/resnet18/supervised/apbench/0": 0.8544,
            "cifar10/lsp/jpeg/resnet18/supervised/apbench/0": 0.8014,
            "cifar10/tap/jpeg/resnet18/supervised/apbench/0": 0.8408,
            "cifar10/ops/jpeg/resnet18/supervised/apbench/0": 0.7848,
            "cifar10/lsp/jpeg(quality=30)/resnet18/supervised/dvae/0": 0.4211,
        },
        cost="about 60 microseconds for a 32-pixel image on one core",
        notes="the same bytes as Pillow's encoder and decoder; the optimize flag of the ISS code "
        "changes the file, not the pixels. DUNE's code compresses after crop and flip, in every "
        "epoch",
    )

    quality: int = 10  # of the quantization tables, 1 to 100

    def __post_init__(self) -> None:
        require(1 <= self.quality <= 100, f"quality is {self.quality}, allowed are 1 to 100")

    def change(self, pixels: Tensor) -> Tensor:
        return recode(pixels, self.quality)
