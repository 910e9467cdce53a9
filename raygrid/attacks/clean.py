"""No attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from raygrid.attacks.base import ATTACKS, Attack, AttackContext
from raygrid.core.images import Images, Poison
from raygrid.core.lazy import torch
from raygrid.core.registry import Card

if TYPE_CHECKING:
    from torch import Tensor


@ATTACKS.register("clean")
@dataclass(frozen=True, kw_only=True)
class Clean(Attack):
    """The control: an empty poison."""

    card = Card(
        paper="control",
        published={
            "cifar10/clean/standard/resnet18/supervised/apbench/0": 0.9432,
            "cifar10/clean/standard/resnet18/supervised/dvae/0": 0.9457,
            "cifar10/clean/standard/resnet18/supervised/tp/0": 0.9459,
        },
    )
    seeded: ClassVar[bool] = False
    instant: ClassVar[bool] = True

    def propose(self, images: Images, context: AttackContext) -> Tensor:
        return images.pixels[context.index(images)]

    def poison_nbytes(self, rows: int, side: int) -> int:
        return 0

    def poison(self, images: Images, context: AttackContext) -> Poison:
        none = torch.empty(0, dtype=torch.int64)
        return Poison(none, images.pixels[:0], images.labels[:0])
