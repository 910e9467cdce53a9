"""SEM: stable error-minimizing noise, REM with a random disturbance in place of its adversary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from raygrid.attacks.base import ATTACKS
from raygrid.attacks.rem import Rem
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card
from raygrid.nn.pgd import uniform

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@ATTACKS.register("sem")
@dataclass(frozen=True, kw_only=True)
class Sem(Rem):
    """Noise that makes the loss small around the noisy image, wherever one looks.

    As `rem`, but while noise is made the loss is taken at one draw of uniform noise within
    adv_radius of each copy, cut off to [0, 1]. The network still trains on images that an adversary
    has raised the loss of.
    """

    card = Card(
        paper="Liu et al. 2024, Stable Unlearnable Example (SEM)",
        code="liuyixin-louis/Stable-Unlearnable-Example@6e5aebd (attacks/stable_workers.py)",
        published={
            "cifar10/sem/standard/resnet18/supervised/wxl/0": 0.1594,
            "cifar10/sem/at(steps=7)/resnet18/supervised/wxl/0": 0.3243,
            "cifar10/sem/jpeg/resnet18/supervised/wxl/0": 0.8158,
        },
        needs="labels",
        cost="1,700 forward passes per image of 50,000: a ninth of REM's",
        notes="defaults are those of the README (sem8-4). The paper's own tables were not read; "
        "others measure 15.94 % without a defense (DUNE's table). As in REM's code, the last "
        "images that fill no batch get no final noise there",
    )
    quick: ClassVar[Mapping[str, Scalar]] = {**Rem.quick}
    tiny: ClassVar[Mapping[str, Scalar]] = {**Rem.tiny, "train_steps": 3}

    @property
    def noise_passes(self) -> float:
        return 2.0 * self.steps * self.copies

    def disturbed(
        self, network: nn.Module, x: Tensor, labels: Tensor, rng: torch.Generator
    ) -> Tensor:
        return (x + uniform(x, self.adv_radius * self.radius, rng)).clamp_(0, 1)
