"""MixUp: convex combinations of images and labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from raygrid.core import draws
from raygrid.core.lazy import torch
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card, require
from raygrid.defenses.base import DEFENSES, Defense

if TYPE_CHECKING:
    from torch import Tensor


@DEFENSES.register("mixup")
@dataclass(frozen=True, kw_only=True)
class Mixup(Defense):
    """x_i becomes w_i x_i + (1 - w_i) x_j(i), and the same for its label.

    w_i ~ U(0, 1) for each image (Beta(1, 1)), j a random permutation of the batch.
    """

    card = Card(
        paper="Zhang et al. 2018; Qin et al. 2024 (APBench)",
        code="lafeat/apbench@9a6fb91 (kornia RandomMixUp)",
        published={
            "cifar10/em_apb/mixup/resnet18/supervised/apbench/0": 0.3114,
            "cifar10/lsp/mixup/resnet18/supervised/apbench/0": 0.1877,
            "cifar10/ops/mixup/resnet18/supervised/apbench/0": 0.4927,
        },
        notes="the ISS code mixes twice with probability 1/2, near mixup(p=0.5)+mixup(p=0.5): its "
        "second partner is unmixed, here it may be mixed already",
    )
    idle: ClassVar[tuple[Mapping[str, Scalar], ...]] = ({"p": 0.0},)
    learners: ClassVar[Literal["all", "supervised"]] = "supervised"
    mixes: ClassVar[bool] = True

    p: float = 1.0  # probability of mixing an image

    def __post_init__(self) -> None:
        require(0 <= self.p <= 1, f"p is {self.p}, allowed are 0 to 1")

    def augment(self, x: Tensor, y: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        other = draws.randperm(len(x), rng, x.device)
        u, coin = draws.rand((2, len(x)), rng, x.device)
        weight = torch.where(coin < self.p, u, 1.0)
        return _mix(x, x[other], weight), _mix(y, y[other], weight)


def _mix(one: Tensor, two: Tensor, weight: Tensor) -> Tensor:
    """weight * one + (1 - weight) * two along the first axis; weight 1 gives `one` exactly."""
    w = weight.view(-1, *(1,) * (one.dim() - 1))
    return w * one + (1 - w) * two
