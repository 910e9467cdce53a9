"""No defense, no augmentation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from raygrid.core.literals import Scalar
from raygrid.core.registry import Card, Combination
from raygrid.defenses.base import DEFENSES, Defense


@DEFENSES.register("none")
@dataclass(frozen=True, kw_only=True)
class NoDefense(Defense):
    """Training on the stored images as they are (APBench's ND)."""

    card = Card(
        paper="Qin et al. 2024 (APBench), tables 3 to 5",
        notes="the APBench code cannot produce this column: crop and flip stay on there. What "
        "other papers call 'no defense' is `standard` here. On SVHN, which has no standard "
        "augmentation, the two are one training: its row is copied",
    )
    idle: ClassVar[tuple[Mapping[str, Scalar], ...]] = ({},)
    plain: ClassVar[bool] = True

    def skip(self, combination: Combination) -> str | None:
        if combination.views:
            return f"the learner {combination.learner.id} is made of augmentation; use 'standard'"
        return None
