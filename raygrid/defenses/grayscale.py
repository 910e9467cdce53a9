"""Grayscale: the luminance in all three channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from raygrid.core.lazy import torch
from raygrid.core.registry import Card
from raygrid.defenses.base import DEFENSES
from raygrid.defenses.common.filters import PixelFilter

if TYPE_CHECKING:
    from torch import Tensor


@DEFENSES.register("grayscale")
@dataclass(frozen=True, kw_only=True)
class Grayscale(PixelFilter):
    """L = (19595 R + 38470 G + 7471 B + 32768) >> 16, Pillow's integer luminance."""

    card = Card(
        paper="Liu et al. 2023 (ISS); Qin et al. 2024 (APBench)",
        code="liuzrcc/ImageShortcutSqueezing",
        published={
            "cifar10/em_apb/grayscale/resnet18/supervised/apbench/0": 0.9203,
            "cifar10/lsp/grayscale/resnet18/supervised/apbench/0": 0.6470,
        },
        cost="seconds for 50,000 images",
        notes="torchvision's tensor version is one level darker and not idempotent",
    )

    def change(self, pixels: Tensor) -> Tensor:
        red, green, blue = pixels.to(torch.int32).unbind(1)
        luma = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16
        return luma.to(torch.uint8).unsqueeze(1).expand(-1, 3, -1, -1).contiguous()
