"""Bullseye polytope: the target lies at the center of the poisons' features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from raygrid.attacks.base import ATTACKS
from raygrid.attacks.common.polytope import Polytope, PolytopeLoss
from raygrid.attacks.common.targeted import PolytopeState
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card

if TYPE_CHECKING:
    from torch import Tensor


@ATTACKS.register("bullseye_polytope")
@dataclass(frozen=True, kw_only=True)
class BullseyePolytope(Polytope):
    """Descends ||mean f(poisons) - f(target)|| / ||f(target)||, averaged over extractors."""

    card = Card(
        paper="Aghakhani et al. 2020 (Bullseye Polytope), section 3",
        code="ucsb-seclab/BullseyePoison@65af294; aks2203/poisoning-benchmark@97a67ae",
        published={
            "cifar10/bullseye_polytope/standard/resnet18/linear_probe/just_how_toxic/0": 0.85,
        },
        needs="extractors that the protocol pre-trains",
        cost="1 forward and 1 backward pass a step and base",
        notes="the paper prints half the squared norm; both codes descend the norm. The original "
        "runs 800 steps at 25.5/255 on 18 networks",
    )
    tiny: ClassVar[Mapping[str, Scalar]] = {"surrogate": "small_cnn", "steps": 4}

    def loss(self, state: PolytopeState) -> PolytopeLoss:
        def total(features: list[Tensor]) -> Tensor:
            loss = features[0].new_zeros(())
            for own, wanted in zip(features, state.targets, strict=True):
                loss = loss + (own.mean(0) - wanted[0]).norm() / wanted.norm()
            return loss / len(features)

        return total
