"""Adversarial training with PGD."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from raygrid.core import draws
from raygrid.core.lazy import nn, torch
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card, require
from raygrid.defenses.base import DEFENSES, Defense
from raygrid.nn.pgd import Ball, L2Ball, frozen, unit

if TYPE_CHECKING:
    from torch import Tensor


@DEFENSES.register("at")
@dataclass(frozen=True, kw_only=True)
class AdversarialTraining(Defense):
    """Each batch is replaced by its adversarial version before the update.

    From x + step * N(0, 1), `steps` times: one sign step up the cross-entropy, projection onto
    the linf ball of `radius` around x, clip to [0, 1]. With `norm=l2` the start is at the distance
    `step` from x, and each step goes that far along the gradient, into the Euclidean ball. The
    network is in eval mode and frozen meanwhile, so its batch-norm statistics come from
    adversarial batches alone.
    """

    card = Card(
        paper="Madry et al. 2018; Qin et al. 2024 (APBench), table 15",
        code="lafeat/apbench@9a6fb91",
        published={
            "cifar10/em_apb/at/resnet18/supervised/apbench/0": 0.8251,
            "cifar10/lsp/at/resnet18/supervised/apbench/0": 0.8138,
            "cifar10/tap/at/resnet18/supervised/apbench/0": 0.7992,
            "cifar10/ops/at/resnet18/supervised/apbench/0": 0.1495,
            "cifar10/clean/at(step=1.6/255)/resnet18/supervised/dvae/0": 0.8517,
            "cifar10/lsp/at(step=1.6/255)/resnet18/supervised/dvae/0": 0.8456,
        },
        cost="11 times standard training with 10 steps",
        notes="step 2/255 in APBench and in the D-VAE code, 1.6/255 in the D-VAE paper; ISS: "
        "radius 0.031, step 0.007; D-VAE's ImageNet-100: 5 steps of 2/255 in the code, whose paper "
        "says 10 and names no dataset. CUDA: ten steps of 0.15 radii in both norms; DUNE: seven of "
        "a quarter of it; both from anywhere in the ball. norm=l2 is APBench's --at_type L_2: its "
        "radius stays 8/255 and its step 2/255 unless one says otherwise, next to nothing in this "
        "norm, where 0.5 with steps of 0.1 is usual. The steps have the "
        "precision of the training, bf16 for convolutional networks, where these codes have "
        "float32: see experiments/results/precision.md",
    )
    idle: ClassVar[tuple[Mapping[str, Scalar], ...]] = ({"radius": 0.0},)
    tiny: ClassVar[Mapping[str, Scalar]] = {"steps": 2}
    learners: ClassVar[Literal["all", "supervised"]] = "supervised"
    younger: ClassVar[frozenset[str]] = frozenset({"norm"})

    radius: float = 8 / 255  # largest change of a channel value, of a whole image in l2
    steps: int = 10  # of the inner maximization
    step: float = 2 / 255  # size of one, as the radius is measured
    norm: Literal["linf", "l2"] = "linf"

    def __post_init__(self) -> None:
        self._ball()  # refuses its own parameters
        require(self.steps >= 1, f"steps is {self.steps}, allowed are whole numbers from 1")

    @property
    def cost(self) -> float:
        return self.steps + 1.0

    def _ball(self) -> Ball:
        kind = Ball if self.norm == "linf" else L2Ball
        return kind(self.radius, self.steps, self.step)

    def loss(
        self, model: nn.Module, x: Tensor, y: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        return super().loss(model, self.perturb(model, x, y, rng), y, rng)

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        """Adversarial images (n, C, H, W) in [0, 1], within `radius` of x; the model is left as it
        was, with its parameters, buffers and gradients."""
        noise = draws.randn(x.shape, rng, x.device)
        if self.norm == "l2":
            noise = unit(noise)

        def loss(moved: Tensor) -> Tensor:
            return nn.functional.cross_entropy(model(moved).float(), y)

        with frozen(model):
            return self._ball().climb(loss, x, x + self.step * noise)
