"""MI-FGSM-n: error-maximizing noise with momentum (M10, M100, M250)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from raygrid.attacks.base import ATTACKS
from raygrid.attacks.common.surrogates import normalized_by
from raygrid.attacks.common.transfer import ErrorMaximizing
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card, require
from raygrid.nn.pgd import Direction

if TYPE_CHECKING:
    from torch import Tensor, nn


@ATTACKS.register("mifgsm")
@dataclass(frozen=True, kw_only=True)
class MiFgsm(ErrorMaximizing):
    """Signed steps of an n-th of the budget along a running sum of gradients, from zero.

    v <- momentum * v + g / mean(|g|) for each image, then a step against sign(v).
    `variant=mompgd`: v <- momentum * v + sign(g), and a step of v itself, ten times less after
    3/8, 5/8 and 7/8 of the steps. That step is one size in normalized units: `step` of the budget
    times the mean of 1 / sd over the channels, so that channels of larger sd move farther. The mode
    of the code that the paper used is
    mifgsm(variant=mompgd, momentum=0.9, step=0.05, start=normal, augmentation=affine_shift).
    """

    card = Card(
        paper="Dong et al. 2018 (MI-FGSM); Sandoval-Segura et al. 2022 as a poison",
        published={
            "cifar10/mifgsm/standard/resnet18/supervised/learned_faster/0": 0.2527,
            "cifar10/mifgsm(steps=100)/standard/resnet18/supervised/learned_faster/0": 0.1458,
            "cifar10/mifgsm(steps=250)/standard/resnet18/supervised/learned_faster/0": 0.1236,
        },
        needs="labels; a surrogate trained on the clean set",
        cost="2 forward passes per image and step, and the surrogate",
        notes="the paper does not say which variant it ran; the default is the classic one. "
        "The surrogate of version 2 is shifted with the mean color as border, as in TAP's code",
    )
    quick: ClassVar[Mapping[str, Scalar]] = {
        "surrogate": "small_cnn",
        "surrogate_epochs": 6,
        "batch_size": 128,
    }

    version: ClassVar[int] = 2

    steps: int = 10
    step: float | None = None  # of the budget
    momentum: float = 1.0
    variant: Literal["classic", "mompgd"] = "classic"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.momentum >= 0, f"momentum is {self.momentum}, allowed are numbers from 0")

    def direction(self, network: nn.Module) -> Direction:
        if self.variant == "classic":
            return Classic(self.momentum)
        sds = normalized_by(network)[1]
        falls = [self.steps * k // 8 for k in (3, 5, 7)]
        return MomPgd(self.momentum, falls, sds * (1 / sds).mean())


class Classic:
    """Sign of the sum of gradients, each scaled to a mean absolute value of one."""

    def __init__(self, momentum: float) -> None:
        self.momentum = momentum
        self.sum: Tensor | None = None

    def __call__(self, gradient: Tensor) -> Tensor:
        mean = gradient.flatten(1).abs().mean(1).clamp_(min=1e-30).view(-1, 1, 1, 1)
        scaled = gradient.div_(mean)
        self.sum = scaled if self.sum is None else self.sum.mul_(self.momentum).add_(scaled)
        return self.sum.sign()


class MomPgd:
    """SGD with momentum on signs, whose rate falls tenfold before the given steps.

    scale: of the step, one number or one for each channel, (1, C, 1, 1).
    """

    def __init__(self, momentum: float, falls: list[int], scale: Tensor) -> None:
        self.momentum = momentum
        self.falls = falls
        self.scale = scale
        self.done = 0
        self.sum: Tensor | None = None

    def __call__(self, gradient: Tensor) -> Tensor:
        signs = gradient.sign_()
        self.sum = signs if self.sum is None else self.sum.mul_(self.momentum).add_(signs)
        rate = 0.1 ** sum(self.done >= fall for fall in self.falls)
        self.done += 1
        return self.sum * (rate * self.scale)
