"""Low-frequency noise: one smooth pattern a class."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from raygrid.attacks.base import ATTACKS, AttackContext
from raygrid.attacks.common.classwise import ClassWise
from raygrid.core.budget import Budget
from raygrid.core.errors import SpecError
from raygrid.core.images import Images
from raygrid.core.lazy import torch
from raygrid.core.registry import Card, Combination, require

if TYPE_CHECKING:
    from torch import Tensor


@ATTACKS.register("low_frequency")
@dataclass(frozen=True, kw_only=True)
class LowFrequency(ClassWise):
    """Per class and channel, normal draws in the n x n lowest coefficients of the 2-D DCT.

    The inverse transform (orthonormal DCT-II) is scaled to the budget: `max` divides by the
    largest absolute value over all channels; `clip` brings the standard deviation to the budget
    and clips, which is stronger and leaks into higher frequencies.
    """

    card = Card(
        paper="Sandoval-Segura et al. 2022, Poisons that are learned faster are more effective",
        published={
            f"cifar10/low_frequency{n}/standard/resnet18/supervised/learned_faster/0": final
            for n, final in (
                ("(n=2)", 0.4536),
                ("(n=3)", 0.4271),
                ("", 0.4859),
                ("(n=5)", 0.2912),
                ("(n=6)", 0.3940),
                ("(n=7)", 0.3274),
                ("(n=8)", 0.4154),
            )
        },
        cost="nothing",
        notes="final accuracies of one draw each, augmentation not stated; the paper "
        "does not say how it scales to linf 8/255. With max scaling its l2 length is a "
        "quarter to a third of that of regions. Three layers trained on 1,000 CIFAR-10 images need "
        "four times the budget: 41 to 23 % with n=2 at 32/255",
    )

    budget: Budget = Budget("linf", 8 / 255)
    n: int = 4  # coefficients along each axis, the constant one included
    scaling: Literal["max", "clip"] = "max"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(2 <= self.n <= 64, f"n is {self.n}, allowed are 2 to 64 (published: 2 to 8)")

    def skip(self, combination: Combination) -> str | None:
        return self._fault(combination.image_size, combination.image_size)

    def patterns(self, images: Images, context: AttackContext) -> Tensor:
        channels, height, width = images.shape
        fault = self._fault(height, width)
        if fault:
            raise SpecError(fault)
        generator = context.stream.generator("patterns")
        shape = (images.classes, channels, self.n, self.n)
        coefficients = torch.randn(shape, generator=generator, dtype=torch.float64)
        delta = cosines(self.n, height).T @ coefficients @ cosines(self.n, width)
        eps = self.limit_at(width).value
        if self.scaling == "clip":
            deviation = delta.flatten(1).std(1).view(-1, 1, 1, 1)
            return (delta / deviation * eps).clamp(-eps, eps).float()
        return (delta / delta.abs().amax((1, 2, 3), keepdim=True) * eps).float()

    def _fault(self, height: int, width: int) -> str | None:
        if self.n <= min(height, width):
            return None
        return f"n={self.n} frequencies need as many pixels, the images have {height}x{width}"


def cosines(count: int, size: int) -> Tensor:
    """The first `count` basis vectors of the orthonormal DCT-II, float64 (count, size)."""
    frequency = torch.arange(count, dtype=torch.float64)[:, None]
    place = torch.arange(size, dtype=torch.float64)[None]
    basis = torch.cos(math.pi * (2 * place + 1) * frequency / (2 * size)) * math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    return basis
