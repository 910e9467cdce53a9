"""Regions: one random color pattern a class, constant on a grid of rectangles."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from raygrid.attacks.base import ATTACKS, AttackContext
from raygrid.attacks.common.classwise import ClassWise, collisions, distinct_signs, scale_l2
from raygrid.core.budget import Budget
from raygrid.core.errors import SpecError
from raygrid.core.images import Images
from raygrid.core.lazy import torch
from raygrid.core.registry import Card, Combination, require

if TYPE_CHECKING:
    from torch import Tensor


@ATTACKS.register("regions")
@dataclass(frozen=True, kw_only=True)
class Regions(ClassWise):
    """Per class, region and channel one value; every pixel of the region gets it.

    sign: +budget or -budget with probability 1/2 each; uniform: U(-budget, budget);
    normal: N(0, 1), l2 alone. With an l2 budget each pattern is scaled to that length. `n=1024` on
    32 pixels has a region a pixel: RN, the class-wise random noise; with `values=uniform` it is
    the random noise that EM is compared with.
    """

    card = Card(
        paper="Sandoval-Segura et al. 2022, Poisons that are learned faster are more effective",
        published={
            f"cifar10/regions{n}/standard/resnet18/supervised/learned_faster/0": final
            for n, final in (
                ("(n=1)", 0.7479),
                ("(n=2)", 0.3114),
                ("(n=4)", 0.1145),
                ("", 0.2032),
                ("(n=64)", 0.1300),
                ("(n=128)", 0.1222),
                ("(n=1024)", 0.1164),
            )
        },
        cost="nothing",
        notes="final accuracies of one draw each, augmentation not stated. The paper "
        "gives the side of a region as 32/sqrt(n), which 2 and 128 do not have: here 2^m regions "
        "are 2^floor(m/2) rows. One region has 8 sign patterns, so 10 classes collide; "
        "`distinct` forbids collisions. HYPO's "
        "P5 in l2 is regions(budget=l2:0.5, n=1024, values=normal)",
    )
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")

    budget: Budget = Budget("linf", 8 / 255)
    n: int = 16  # regions; a square or a power of two
    values: Literal["sign", "uniform", "normal"] = "sign"
    distinct: bool = False  # no two classes share a pattern

    def __post_init__(self) -> None:
        super().__post_init__()
        allowed = 1 <= self.n <= 1024 and (math.isqrt(self.n) ** 2 == self.n or _power(self.n))
        require(allowed, f"n is {self.n}, allowed are squares and powers of two from 1 to 1024")
        plain = self.values != "normal" or self.budget.norm == "l2"
        require(plain, "values is normal, allowed with an l2 budget alone (linf: sign, uniform)")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of regions."""
        root = math.isqrt(self.n)
        if root * root == self.n:
            return root, root
        power = self.n.bit_length() - 1
        return 2 ** (power // 2), 2 ** (power - power // 2)

    def skip(self, combination: Combination) -> str | None:
        fault = self._fault(combination.image_size, combination.image_size)
        return fault or self._too_many(combination.classes, channels=3)

    def patterns(self, images: Images, context: AttackContext) -> Tensor:
        channels, height, width = images.shape
        fault = self._fault(height, width) or self._too_many(images.classes, channels)
        if fault:
            raise SpecError(fault)
        rows, cols = self.grid
        cells = self._cells(images.classes, channels * self.n, context)
        cells = cells.view(-1, channels, rows, cols)
        delta = cells[:, :, _region_of(height, rows)][:, :, :, _region_of(width, cols)]
        limit = self.limit_at(width)
        if limit.norm == "l2":
            return scale_l2(delta, limit.value)
        return delta * limit.value

    def _cells(self, classes: int, features: int, context: AttackContext) -> Tensor:
        """Values of the regions, float32 (classes, features); reports how many classes collide."""
        generator = context.stream.generator("patterns")
        if self.values == "uniform":
            return torch.rand(classes, features, generator=generator) * 2 - 1
        if self.values == "normal":
            return torch.randn(classes, features, generator=generator)
        if self.distinct:
            return distinct_signs(classes, features, generator)
        signs = torch.randint(2, (classes, features), generator=generator).float() * 2 - 1
        context.progress.report(1, 1, collisions=float(collisions(signs)))
        return signs

    def _fault(self, height: int, width: int) -> str | None:
        rows, cols = self.grid
        if height >= rows and width >= cols:
            return None
        return f"{self.n} regions need {rows}x{cols} pixels, the images have {height}x{width}"

    def _too_many(self, classes: int, channels: int) -> str | None:
        features = channels * self.n
        if not self.distinct or self.values != "sign" or features > 30 or classes <= 2**features:
            return None
        return f"n={self.n} has {2**features} patterns, {classes} classes cannot be distinct"


def _power(n: int) -> bool:
    return n & (n - 1) == 0


def _region_of(size: int, regions: int) -> Tensor:
    """The region of each of `size` pixels, int64; region i begins at round(i * size / regions)."""
    starts = torch.tensor([round(i * size / regions) for i in range(regions)])
    return torch.bucketize(torch.arange(size), starts, right=True) - 1
