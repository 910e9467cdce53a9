"""HYPO: hypocritical perturbations, which make a clean-trained network more certain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from raygrid.architectures import ARCHITECTURES
from raygrid.attacks.base import ATTACKS
from raygrid.attacks.common.surrogates import SurrogateRecipe, delusive150
from raygrid.attacks.common.transfer import TransferAttack
from raygrid.core.lazy import nn
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card
from raygrid.nn.pgd import Descent, Direction, L2Descent, sign, unit

if TYPE_CHECKING:
    from torch import Tensor


@ATTACKS.register("hypo")
@dataclass(frozen=True, kw_only=True)
class Hypo(TransferAttack):
    """Descends the loss of the true label on a network trained on the clean set.

    From zero, without augmentation. linf: signed steps. l2: steps along the gradient of unit
    length, pulled back to the sphere when longer.
    """

    card = Card(
        paper="Tao et al. 2021, Better Safe Than Sorry",
        code="TLMichael/Delusive-Adversary@8f033e0",
        published={
            "cifar10/hypo/none/resnet18/supervised/apbench/0": 0.6904,
            "cifar10/hypo/standard/resnet18/supervised/apbench/0": 0.7038,
            "cifar10/hypo/grayscale/resnet18/supervised/apbench/0": 0.6335,
        },
        needs="labels; a surrogate trained on the clean set",
        cost="200 forward passes per image, and the surrogate",
        notes="a weak poison. The original: l2:0.5, steps of a fifth, on a VGG-16; APBench: linf "
        "8/255 on a downloaded ResNet-18, remade here with the original's schedule. "
        "`surrogate_recipe=tap40` is that of `tap`, border of its shifts included. Both codes pass "
        "through the network in float32 (`precision=fp32`); here from version 2 on in bf16, whose "
        "steps leave the surrogate as certain",
    )
    version: ClassVar[int] = 2
    quick: ClassVar[Mapping[str, Scalar]] = {
        "surrogate": "small_cnn",
        "surrogate_epochs": 6,
        "batch_size": 128,
        "steps": 30,
    }
    tiny: ClassVar[Mapping[str, Scalar]] = {**TransferAttack.tiny, "step": 0.3}
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")

    steps: int = 100
    step: float | None = 0.1
    surrogate_recipe: Literal["delusive150", "tap40"] = "delusive150"
    surrogate_epochs: int | None = None  # 150, of `tap40` 40
    precision: Literal["bf16", "fp32"] = "bf16"  # of the steps on a convolutional surrogate

    @property
    def epochs_before(self) -> int:
        usual = 40 if self.surrogate_recipe == "tap40" else 150
        return usual if self.surrogate_epochs is None else self.surrogate_epochs

    @property
    def recipe(self) -> SurrogateRecipe:
        if self.surrogate_recipe == "tap40":
            return super().recipe
        return delusive150(self.surrogate, self.epochs_before)

    @property
    def passes_in(self) -> Literal["bf16", "fp32"]:
        return self.precision if ARCHITECTURES.make(self.surrogate).convolutional else "fp32"

    @property
    def descent(self) -> Descent:
        if self.budget.norm == "l2":
            share = 1 / self.steps if self.step is None else self.step
            return L2Descent(self.radius, share * self.radius, self.steps)
        return super().descent

    def direction(self, network: nn.Module) -> Direction:
        return unit if self.budget.norm == "l2" else sign

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits, labels, reduction="none")
