"""Withheld: the control that trains on the clean remainder alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from raygrid.attacks.base import ATTACKS, Attack, AttackContext
from raygrid.core.images import Images, Poison
from raygrid.core.registry import Card, Combination

if TYPE_CHECKING:
    from torch import Tensor


@ATTACKS.register("withheld")
@dataclass(frozen=True, kw_only=True)
class Withheld(Attack):
    """Takes away the rows that an attack of the same dataset, ratio and seed would perturb.

    What a poison at ratio r < 1 costs the victim is its accuracy against this, not against
    training on everything.
    """

    card = Card(
        paper="Liu et al. (Transferable Availability Poisoning), figure 3, clean remainder only",
        notes="which rows are taken depends on the trial's seed, as for every attack",
    )
    seeded: ClassVar[bool] = False
    withholds: ClassVar[bool] = True

    def propose(self, images: Images, context: AttackContext) -> Tensor:
        return images.pixels[context.index(images)]

    def poison_nbytes(self, rows: int, side: int) -> int:
        """Bytes of rows and labels; withheld images have no pixels to store."""
        return 16 * rows

    def poison(self, images: Images, context: AttackContext) -> Poison:
        index = context.index(images)
        return Poison(index, images.pixels[:0], images.labels[index], withheld=True)

    def skip(self, combination: Combination) -> str | None:
        if combination.poison_ratio < 1:
            return None
        return "withheld at poison_ratio 1 leaves nothing to train on"
