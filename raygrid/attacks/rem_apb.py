"""REM as APBench makes it: up from the last start, then down, on a plainly trained network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from raygrid.attacks.base import ATTACKS, AttackContext
from raygrid.attacks.common.em_rounds import RoundsAttack
from raygrid.attacks.common.noise import Loss, SampleNoise
from raygrid.core.images import Images
from raygrid.core.lazy import torch
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card, require
from raygrid.nn.pgd import Descent

if TYPE_CHECKING:
    from torch import Tensor


@ATTACKS.register("rem_apb")
@dataclass(frozen=True, kw_only=True)
class RemApb(RoundsAttack):
    """EM's rounds, but noise descends from adversarial starts.

    Every round the start r of each image, kept over the rounds, ascends the loss (`up_steps`
    within up_radius); the noise then descends from r. No crops, no adversarial training.
    """

    card = Card(
        paper="Fu et al. 2022, as remade by Qin et al. 2024 (APBench)",
        code="lafeat/apbench@9a6fb91",
        published={
            "cifar10/rem_apb/none/resnet18/supervised/apbench/0": 0.1781,
            "cifar10/rem_apb/standard/resnet18/supervised/apbench/0": 0.1747,
            "cifar10/rem_apb/grayscale/resnet18/supervised/apbench/0": 0.9227,
            "cifar10/rem_apb(budget=16/255)/standard/resnet18/supervised/apbench/0": 0.1980,
            "cifar10/rem_apb(against=grayscale)/grayscale/resnet18/supervised/apbench/0": 0.5633,
            "cifar10/rem_apb(against=jpeg)/jpeg/resnet18/supervised/apbench/0": 0.7584,
            "cifar10/rem_apb(against=ueraser)/ueraser_max/resnet18/supervised/apbench/0": 0.9184,
            "cifar100/rem_apb/standard/resnet18/supervised/apbench/0": 0.0373,
        },
        needs="labels",
        cost="21 forward passes per image and round, about 10 rounds",
        notes="another method than the paper's, which is rem. APBench computes in float32, "
        "convolutional networks here from version 3 on in bf16",
    )
    quick: ClassVar[Mapping[str, Scalar]] = {
        "surrogate": "small_cnn",
        "max_rounds": 10,
    }
    tiny: ClassVar[Mapping[str, Scalar]] = {
        "surrogate": "small_cnn",
        "batch_size": 16,
        "max_rounds": 2,
    }
    effort: ClassVar[frozenset[str]] = RoundsAttack.effort | {"up_step", "up_steps"}

    batch_size: int = 128
    steps: int | None = 5
    step: float = 0.2
    up_radius: float = 0.5  # of the budget
    up_steps: int = 5
    up_step: float = 0.1  # of the budget

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.up_radius >= 0, f"up_radius is {self.up_radius}, allowed from 0")
        require(self.up_steps >= 1, f"up_steps is {self.up_steps}, allowed from 1")
        require(self.up_step > 0, f"up_step is {self.up_step}, allowed are positive numbers")

    @property
    def round_passes(self) -> float:
        return super().round_passes + 2.0 * self.up_steps

    def start(self, images: Images, context: AttackContext) -> SampleNoise:
        up = Descent(self.up_radius * self.radius, self.up_step * self.radius, self.up_steps)
        return UpDownNoise(super().start(images, context), up)


class UpDownNoise(SampleNoise):
    """The noise, and beside it the starts that the next round goes on from."""

    def __init__(self, noise: SampleNoise, up: Descent) -> None:
        super().__init__(noise.images, noise.values, noise.rows, noise.boxed)
        self.starts = self.values.clone()
        self.up = up

    def descend(
        self, index: Tensor, keep: int, loss: Loss, descent: Descent, rng: torch.Generator
    ) -> None:
        x, rows = self.images.floats(index), index[:keep]
        start = (x + self.starts[index]).clamp_(0, 1)
        self.starts[rows] = self.moved(index, start, lambda b: -loss(b), self.up, rng)[:keep]
        start = (x + self.starts[index]).clamp_(0, 1)
        self.values[rows] = self.moved(index, start, loss, descent, rng)[:keep]

    def tensors(self) -> dict[str, Tensor]:
        return {"noise": self.values, "starts": self.starts}
