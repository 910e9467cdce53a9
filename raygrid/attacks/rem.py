"""REM: robust error-minimizing noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from raygrid.attacks.base import ATTACKS
from raygrid.attacks.common.stepwise import StepwiseAttack
from raygrid.core.lazy import nn, torch
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card, require
from raygrid.nn.pgd import Descent, check_finite, cross_entropy, input_gradient, negative, uniform
from raygrid.nn.steps import Batch

if TYPE_CHECKING:
    from torch import Tensor


@ATTACKS.register("rem")
@dataclass(frozen=True, kw_only=True)
class Rem(StepwiseAttack):
    """Noise that makes the loss small even after an adversary has raised it.

    From fresh uniform noise d, `steps` times: `copies` random crops and flips T of the noisy
    images; an adversary raises the loss of each within adv_radius; the gradient at its result z is
    routed back through T and the clipping, not through the adversary; d moves against the sign of
    the sum. Between, the network takes SGD steps on adversarial versions of the noisy images.
    """

    card = Card(
        paper="Fu et al. 2022, Robust Unlearnable Examples",
        code="fshp971/robust-unlearnable-examples (generate_robust_em.py, robust_workers.py)",
        published={
            "cifar10/rem/standard/resnet18/supervised/dvae/0": 0.2243,
            "cifar10/rem(budget=16/255)/standard/resnet18/supervised/dvae/0": 0.2322,
            "cifar100/rem/standard/resnet18/supervised/dvae/0": 0.1680,
        },
        needs="labels",
        cost="15,500 forward passes per image of 50,000",
        notes="APBench's REM is another method: rem_apb. The official code leaves the last 80 "
        "images of CIFAR-10 out of the final pass",
    )
    quick: ClassVar[Mapping[str, Scalar]] = {
        "surrogate": "small_cnn",
        "train_steps": 150,
        "decay_every": 100,
        "augmentation": "none",
        "steps": 4,
        "step": 0.5,
        "copies": 1,
        "adv_steps": 2,
        "adv_step": 0.5,
    }
    tiny: ClassVar[Mapping[str, Scalar]] = {**StepwiseAttack.tiny, "adv_steps": 1, "copies": 2}
    effort: ClassVar[frozenset[str]] = StepwiseAttack.effort | {"adv_step", "adv_steps", "copies"}

    adv_radius: float = 0.5  # of the budget
    adv_steps: int = 10
    adv_step: float = 0.2  # of the adversary's radius
    copies: int = 5  # crops and flips whose gradients are summed

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.adv_radius >= 0, f"adv_radius is {self.adv_radius}, allowed from 0")
        require(self.adv_steps >= 1, f"adv_steps is {self.adv_steps}, allowed from 1")
        require(self.adv_step > 0, f"adv_step is {self.adv_step}, allowed are positive numbers")
        require(self.copies >= 1, f"copies is {self.copies}, allowed are whole numbers from 1")

    @property
    def noise_passes(self) -> float:
        return self.steps * self.copies * (self.shown_passes + 2)

    @property
    def shown_passes(self) -> float:
        return 2.0 * self.adv_steps if self.adv_radius else 0.0

    def noise(self, network: nn.Module, batch: Batch) -> Tensor:
        noise = uniform(batch.x, self.radius, batch.rng)
        total = noise.new_zeros(())
        for _ in range(self.steps):
            gradient = self.routed(network, batch, noise)
            total += gradient.sum()
            noise = noise.sub(gradient.sign_(), alpha=self.step * self.radius)
            noise.clamp_(-self.radius, self.radius)
        check_finite(total)
        return noise

    def routed(self, network: nn.Module, batch: Batch, noise: Tensor) -> Tensor:
        """Gradient in the noise of the loss at the adversary's result, summed over copies."""
        labels = batch.y.repeat(self.copies)
        noise = noise.detach().requires_grad_()
        seen = (batch.x + noise).clamp(0, 1).repeat(self.copies, 1, 1, 1)
        seen = self.augmented(seen, batch.rng)
        worst = self.disturbed(network, seen.detach(), labels, batch.rng)
        _, gradient = input_gradient(cross_entropy(network, labels), worst)
        (routed,) = torch.autograd.grad(seen, noise, gradient)
        return routed

    def disturbed(
        self, network: nn.Module, x: Tensor, labels: Tensor, rng: torch.Generator
    ) -> Tensor:
        """Where the loss of images x is taken while noise is made."""
        return self.adversary(network, x, labels, rng)

    def adversary(
        self, network: nn.Module, x: Tensor, labels: Tensor, rng: torch.Generator
    ) -> Tensor:
        """Images within the adversary's radius of x and in [0, 1] whose loss is raised."""
        radius = self.adv_radius * self.radius
        if radius == 0:
            return x
        loss = cross_entropy(network, labels)
        start = (x + uniform(x, radius, rng)).clamp_(0, 1)
        descent = Descent(radius, self.adv_step * radius, self.adv_steps)
        return descent(x, start, negative(loss))[0].add_(x).clamp_(0, 1)

    def shown(self, network: nn.Module, batch: Batch, noise: Tensor) -> Tensor:
        seen = self.augmented(batch.x + noise, batch.rng).clamp_(0, 1)
        return self.adversary(network, seen, batch.y, batch.rng)
