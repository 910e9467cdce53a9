"""COIN: corruption by interpolation at random places."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from raygrid.core import draws
from raygrid.core.images import cut_to_levels
from raygrid.core.lazy import torch
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card, require
from raygrid.defenses.base import DEFENSES, Defense

if TYPE_CHECKING:
    from torch import Tensor


@DEFENSES.register("coin")
@dataclass(frozen=True, kw_only=True)
class Coin(Defense):
    """Every pixel takes the bilinear value at an offset of its own, the same in all channels.

    Offsets are U(-reach, reach) across and down, drawn anew whenever an image is shown. Beyond the
    border coordinates wrap around; values become bytes by cutting off.
    """

    card = Card(
        paper="Li et al. 2025, Detecting and Corrupting Convolution-based Unlearnable Examples",
        code="wxldragon/COIN@6577fa8 (train.py)",
        published={
            "cifar10/cuda/coin/resnet18/supervised/wxl/0": 0.7202,
            "cifar10/em/coin/resnet18/supervised/wxl/0": 0.1949,
            "cifar10/sem/coin/resnet18/supervised/wxl/0": 0.2422,
        },
        cost="one look-up of four neighbors a batch",
        notes="made for `cuda`; does little to noise that fills the image, helps against few-pixel "
        "`ops` and costs clean accuracy. `reach` is severity 4 of 7 (0.8 to 3.2 in "
        "steps of 0.4) and does not grow with the image. scipy's wrapping has period side - 1, as "
        "here by default; `edge=circular` has the whole side. The detector that comes before it "
        "there is not in it",
    )
    idle: ClassVar[tuple[Mapping[str, Scalar], ...]] = ({"reach": 0.0},)

    reach: float = 2.0  # largest offset, pixels
    edge: Literal["scipy", "circular"] = "scipy"

    def __post_init__(self) -> None:
        require(0 <= self.reach <= 16, f"reach is {self.reach}, allowed are 0 to 16 pixels")

    def augment(self, x: Tensor, y: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        n, _, height, width = x.shape
        offsets = (draws.rand((2, n, height, width), rng, x.device) * 2 - 1) * self.reach
        rows = torch.arange(height, device=x.device)[:, None] + offsets[1]
        columns = torch.arange(width, device=x.device) + offsets[0]
        return cut_to_levels(interpolated(x, rows, columns, self.edge)), y


def interpolated(x: Tensor, rows: Tensor, columns: Tensor, edge: str) -> Tensor:
    """Bilinear values of images (n, C, H, W) at places (n, H, W), wrapped around."""
    height, width = x.shape[-2:]
    top, down = _wrapped(rows, height, edge)
    left, right = _wrapped(columns, width, edge)
    flat = x.flatten(2)

    def at(row: Tensor, column: Tensor) -> Tensor:
        places = (row % height * width + column % width).flatten(1)
        return flat.gather(2, places[:, None].expand(-1, x.shape[1], -1)).view_as(x)

    upper = at(top, left).lerp_(at(top, left + 1), right[:, None])
    lower = at(top + 1, left).lerp_(at(top + 1, left + 1), right[:, None])
    return upper.lerp_(lower, down[:, None])


def _wrapped(places: Tensor, side: int, edge: str) -> tuple[Tensor, Tensor]:
    """Whole part int64 and rest of coordinates, within the side."""
    period = side - 1 if edge == "scipy" else side
    # scipy leaves the last pixel where it is: coordinates up to side - 1 are inside.
    inside = (places >= 0) & (places <= side - 1)
    wrapped = torch.where(inside, places, places.remainder(period))
    whole = wrapped.floor()
    return whole.long(), wrapped - whole
