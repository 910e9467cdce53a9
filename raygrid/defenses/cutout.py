"""CutOut: one black square an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from raygrid.core import draws
from raygrid.core.lazy import torch
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card, require
from raygrid.defenses.base import DEFENSES, Defense

if TYPE_CHECKING:
    from torch import Tensor


@DEFENSES.register("cutout")
@dataclass(frozen=True, kw_only=True)
class Cutout(Defense):
    """A square around a uniformly drawn pixel becomes 0 in all channels, cut off at the border.

    For contrastive learners each view gets its own square after all other view transforms.
    """

    card = Card(
        paper="DeVries and Taylor 2017; Qin et al. 2024 (APBench)",
        code="lafeat/apbench@9a6fb91",
        published={
            "cifar10/em_apb/cutout/resnet18/supervised/apbench/0": 0.1879,
            "cifar10/lsp/cutout/resnet18/supervised/apbench/0": 0.1496,
            "cifar10/ops/cutout/resnet18/supervised/apbench/0": 0.5298,
            "cifar10/tp/cutout/resnet18/simclr/tp/0": 0.3334,
            "cifar10/tap/cutout/resnet18/simclr/tp/0": 0.5745,
        },
        notes="16 pixels at sides of 32 and of 224 as in APBench's code, 32 pixels at 64; the "
        "contrastive tables give no size",
    )
    idle: ClassVar[tuple[Mapping[str, Scalar], ...]] = ({"length": 0},)

    length: int | None = None  # side of the square, pixels; none: 16, or half of 64-pixel images

    def __post_init__(self) -> None:
        allowed = "allowed are none and whole numbers from 0"
        require(self.length is None or self.length >= 0, f"length is {self.length}, {allowed}")

    def augment(self, x: Tensor, y: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        height, width = x.shape[-2:]
        length = self._length(height)
        rows = _span(height, length, x, rng)
        cols = _span(width, length, x, rng)
        box = rows[:, None, :, None] & cols[:, None, None, :]
        return x.masked_fill(box, 0.0), y

    def _length(self, side: int) -> int:
        if self.length is not None:
            return self.length
        return side // 2 if side <= 64 else 16


def _span(side: int, length: int, x: Tensor, rng: torch.Generator) -> Tensor:
    """Positions within `length` around a random center for each image of x: bool (n, side)."""
    start = draws.randint(0, side, (len(x), 1), rng, x.device) - length // 2
    here = torch.arange(side, device=x.device)
    return (here >= start) & (here < start + length)
