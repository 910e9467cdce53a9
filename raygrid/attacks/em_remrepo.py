"""EM as the REM code makes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from raygrid.attacks.base import ATTACKS
from raygrid.attacks.common.stepwise import StepwiseAttack
from raygrid.core.lazy import nn
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card
from raygrid.nn.pgd import Descent, cross_entropy, uniform
from raygrid.nn.steps import Batch

if TYPE_CHECKING:
    from torch import Tensor


@ATTACKS.register("em_remrepo")
@dataclass(frozen=True, kw_only=True)
class EmRemRepo(StepwiseAttack):
    """Error-minimizing noise of cropped and flipped images, kept for the images as they are.

    Each time from fresh uniform noise. The noise is computed where a crop and a flip have put the
    pixels but is stored, and in the end added, without them.
    """

    card = Card(
        paper="Huang et al. 2021, as remade by Fu et al. 2022 (REM)",
        code="fshp971/robust-unlearnable-examples@adf2060 (generate_em.py)",
        published={
            "cifar10/em_remrepo/standard/resnet18/supervised/dvae/0": 0.1226,
            "cifar10/em_remrepo/grayscale/resnet18/supervised/dvae/0": 0.1950,
            "cifar10/em_remrepo(budget=16/255)/standard/resnet18/supervised/dvae/0": 0.1009,
            "cifar100/em_remrepo/standard/resnet18/supervised/dvae/0": 0.1230,
        },
        needs="labels",
        cost="300 forward passes per image of 50,000",
        notes="that noise and image do not fit is the code's doing; without: augmentation=none. "
        "The code leaves the last images of a pass with stale noise, this one does not; its "
        "network sees noise in float16, this one whole levels. Kept noise stays in the pixel "
        "range of the cropped image, as behind the printed numbers, from version 2 on",
    )
    quick: ClassVar[Mapping[str, Scalar]] = {
        "surrogate": "small_cnn",
        "train_steps": 150,
        "decay_every": 100,
        "augmentation": "none",
        "steps": 5,
        "step": 0.4,
    }

    version: ClassVar[int] = 2

    def noise(self, network: nn.Module, batch: Batch) -> Tensor:
        x = batch.x = self.augmented(batch.x, batch.rng)
        start = (x + uniform(x, self.radius, batch.rng)).clamp_(0, 1)
        descent = Descent(self.radius, self.step * self.radius, self.steps)
        made = descent(x, start, cross_entropy(network, batch.y))[0]
        # What is kept is the change of these pixels; it is added to others later, so that what the
        # pixel range would have cut off matters.
        return made.add_(x).clamp_(0, 1).sub_(x)

    def shown(self, network: nn.Module, batch: Batch, noise: Tensor) -> Tensor:
        return (batch.x + noise).clamp_(0, 1)
