"""PGD-n: error-maximizing noise of n signed steps (P10, P100, P250)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from raygrid.attacks.base import ATTACKS
from raygrid.attacks.common.transfer import ErrorMaximizing, TransferAttack
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card


@ATTACKS.register("pgd")
@dataclass(frozen=True, kw_only=True)
class Pgd(ErrorMaximizing):
    """TAP's program with any number of steps: 10, 100 or 250, each `step` of the budget.

    Ten steps reach half the budget from their random start, so P10 is weak.
    """

    card = Card(
        paper="Sandoval-Segura et al. 2022, Poisons that are learned faster are more effective",
        code="lhfowl/adversarial_poisons@a1d58d8",
        published={
            "cifar10/pgd(surrogate=resnet50)/standard/resnet18/supervised/learned_faster/0": 0.6184,
            "cifar10/pgd(steps=100, surrogate=resnet50)/standard/resnet18/supervised"
            "/learned_faster/0": 0.1159,
        },
        needs="labels; a surrogate trained on the clean set",
        cost="2 forward passes per image and step, and the surrogate",
        notes="the paper made P10 and P100 on a ResNet-50; its P250, on a ResNet-18, is tap. "
        "Borders of the shifts as in `tap` from version 2 on",
    )
    quick: ClassVar[Mapping[str, Scalar]] = {
        "surrogate": "small_cnn",
        "surrogate_epochs": 6,
        "batch_size": 128,
    }
    tiny: ClassVar[Mapping[str, Scalar]] = {**TransferAttack.tiny, "step": 0.2}

    version: ClassVar[int] = 2

    steps: int = 10
    start: Literal["zero", "uniform", "normal"] = "normal"
    augmentation: Literal["none", "affine_shift", "crop_flip"] = "affine_shift"
