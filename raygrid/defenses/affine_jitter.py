"""Random rotation, shear, scaling and color jitter: the strong augmentation of OP's victim."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from raygrid.core import draws
from raygrid.core.lazy import torch
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card, require
from raygrid.defenses.base import DEFENSES, Defense
from raygrid.nn.augment import color
from raygrid.nn.augment.trivial import moved

if TYPE_CHECKING:
    from torch import Tensor


@DEFENSES.register("affine_jitter")
@dataclass(frozen=True, kw_only=True)
class AffineJitter(Defense):
    """Turns each image, then shears and scales it, then changes its colors.

    Angles are U(-rotation, rotation) and U(-shear, shear) degrees, the scale is U(1 - scale,
    1 + scale), all about the center; the nearest pixel is read, black comes in. Brightness,
    contrast and saturation are multiplied by U(1 - jitter, 1 + jitter) each, in an order that is
    drawn for every batch.
    """

    card = Card(
        paper="Sandoval-Segura et al. 2023, What Can We Learn from Unlearnable Datasets?",
        code="psandovalsegura/learn-from-unlearnable@605dea2 (orthogonal_projection_step_2.py)",
        cost="two look-ups and three color operations a batch",
        notes="what the authors train with beside their projection, unless told not to: their OP "
        "is `op+affine_jitter+cutmix(box=batch, p=0.5)` under the protocol `op`; `op` is the "
        "projection alone, `affine_jitter+cutmix(box=batch, p=0.5)` the augmentation alone. Crop "
        "and flip come after it there, here before; the order of the colors is drawn for each "
        "image there. PIL's rotation is `affine_jitter(jitter=0, rotation=20, scale=0, shear=0)`",
    )
    idle: ClassVar[tuple[Mapping[str, Scalar], ...]] = (
        {"rotation": 0.0, "shear": 0.0, "scale": 0.0, "jitter": 0.0},
    )

    rotation: float = 10.0  # largest angle, degrees
    shear: float = 10.0  # largest angle of columns against the upright, degrees
    scale: float = 0.2  # largest change of the size, as a share
    jitter: float = 0.2  # largest change of brightness, contrast and saturation, as a share

    def __post_init__(self) -> None:
        rotation, shear = self.rotation, self.shear
        require(0 <= rotation <= 180, f"rotation is {rotation}, allowed are 0 to 180 degrees")
        require(0 <= shear <= 60, f"shear is {shear}, allowed are 0 to 60 degrees")
        for name in ("scale", "jitter"):
            value = getattr(self, name)
            require(0 <= value < 1, f"{name} is {value}, allowed are 0 to below 1")

    def augment(self, x: Tensor, y: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        turn, lean, size, *colors = (draws.rand((6, len(x)), rng, x.device) * 2 - 1).unbind(0)
        # In bfloat16, as under autocast, places would be off by a quarter of a pixel.
        with torch.autocast(x.device.type, enabled=False):
            x = rotated(x, self.rotation * turn)
            x = sheared(x, self.shear * lean, 1 + self.scale * size)
        operations = (color.brightness, color.contrast, color.saturation)
        for which in draws.randperm(3, rng).tolist():
            x = operations[which](x, 1 + self.jitter * colors[which])
        return x, y


def rotated(x: Tensor, degrees: Tensor) -> Tensor:
    """Images (n, C, H, H), each turned counterclockwise about its center by its degrees (n,)."""
    angle = degrees.deg2rad()
    cos, sin = angle.cos(), angle.sin()
    return moved(x, (cos, -sin, None), (sin, cos, None), "nearest")


def sheared(x: Tensor, degrees: Tensor, scale: Tensor) -> Tensor:
    """Images (n, C, H, H) whose rows slide by the tangent of the degrees, larger by the scale.

    degrees, scale: (n,). A row goes to the left by the tangent for each pixel below the center.
    """
    slope = degrees.deg2rad().tan()
    return moved(x, (1 / scale, slope / scale, None), (None, 1 / scale, None), "nearest")
