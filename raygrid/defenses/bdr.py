"""Bit-depth reduction of the stored images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from raygrid.core.images import to_uint8
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card, require
from raygrid.defenses.base import DEFENSES
from raygrid.defenses.common.filters import PixelFilter

if TYPE_CHECKING:
    from torch import Tensor

Variant = Literal["posterize", "float"]


@DEFENSES.register("bdr")
@dataclass(frozen=True, kw_only=True)
class Bdr(PixelFilter):
    """Only the top bits of each channel value stay.

    `posterize` clears the low bits: 2 bits leave {0, 64, 128, 192}. `float` is floor(x * 2^bits) /
    2^bits of x in [0, 1]: white stays white, so there is one level more, {0, 64, 128, 191, 255}.
    """

    card = Card(
        paper="Liu et al. 2023 (ISS); Qin et al. 2024 (APBench)",
        code="liuzrcc/ImageShortcutSqueezing; variant float: yuyi-sd/D-VAE",
        published={
            "cifar10/em_apb/bdr/resnet18/supervised/apbench/0": 0.3794,
            "cifar10/rem_apb/bdr/resnet18/supervised/apbench/0": 0.5860,
            "cifar10/lsp/bdr/resnet18/supervised/apbench/0": 0.5386,
            "cifar10/tap/bdr/resnet18/supervised/apbench/0": 0.7075,
            "cifar10/em_remrepo/bdr(variant=float)/resnet18/supervised/dvae/0": 0.8191,
            "cifar10/lsp/bdr(variant=float)/resnet18/supervised/dvae/0": 0.4025,
        },
        cost="seconds for 50,000 images",
        notes="the D-VAE code reduces floats after crop and flip; on stored images its levels are "
        "rounded to whole ones, and the zero padding is a level of both",
    )
    idle: ClassVar[tuple[Mapping[str, Scalar], ...]] = (
        {"bits": 8},
        {"bits": 8, "variant": "float"},
    )

    bits: int = 2  # of a channel value that stay, 1 to 8
    variant: Variant = "posterize"

    def __post_init__(self) -> None:
        require(1 <= self.bits <= 8, f"bits is {self.bits}, allowed are 1 to 8")

    def change(self, pixels: Tensor) -> Tensor:
        if self.bits == 8:
            return pixels
        if self.variant == "posterize":
            return pixels & (256 - 2 ** (8 - self.bits))
        steps = 2**self.bits
        return to_uint8((pixels.float().div_(255) * steps).floor_() / steps)
