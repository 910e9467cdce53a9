"""Random noise: the control that every budget is compared with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from raygrid.attacks.base import ATTACKS, AttackContext
from raygrid.attacks.common.classwise import scale_l2
from raygrid.attacks.common.piecewise import Piecewise, few
from raygrid.core.budget import Budget
from raygrid.core.images import Images
from raygrid.core.registry import Card

if TYPE_CHECKING:
    from torch import Tensor


@ATTACKS.register("noise")
@dataclass(frozen=True, kw_only=True)
class Noise(Piecewise):
    """Independent noise for every image, value by value; it says nothing about the label.

    uniform: U(-budget, budget); sign: +budget or -budget. With an l2 budget the noise is normal
    (uniform) or of equal magnitudes (sign) and scaled to that length.
    """

    card = Card(
        paper="control",
        cost="nothing",
        notes="class-wise random noise is regions(n=1024)",
    )
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")
    sharded: ClassVar[bool] = True

    budget: Budget = Budget("linf", 8 / 255)
    values: Literal["uniform", "sign"] = "uniform"

    def pieces(self, images: Images, context: AttackContext) -> Iterator[Tensor]:
        for rows in few(context.index(images), images.shape):
            yield self._noise(rows, images, context)

    def _noise(self, rows: Tensor, images: Images, context: AttackContext) -> Tensor:
        limit = self.limit_at(images.shape[-1])
        kind: Literal["normal", "uniform"] = "normal" if limit.norm == "l2" else "uniform"
        delta = context.stream.rows("noise", rows, images.shape, kind)
        if kind == "uniform":
            delta.mul_(2).sub_(1)
        if self.values == "sign":
            delta.sign_()
        if limit.norm == "l2":
            return scale_l2(delta, limit.value)
        return delta.mul_(limit.value)
