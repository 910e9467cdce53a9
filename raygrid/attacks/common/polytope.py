"""What convex and bullseye polytope share: Adam on all poisons against a loss of their features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from raygrid.attacks.base import AttackContext
from raygrid.attacks.common.targeted import AdamOnPixels, ExtractorAttack, PolytopeState
from raygrid.core.images import Images
from raygrid.core.lazy import torch
from raygrid.core.registry import require

if TYPE_CHECKING:
    from torch import Tensor

PolytopeLoss: TypeAlias = "Callable[[list[Tensor]], Tensor]"
"""Features (K, width) of the poisons in each extractor -> the scalar to be lowered."""


@dataclass(frozen=True, kw_only=True)
class Polytope(ExtractorAttack):
    """Base of attacks that place the target among the features of the poisons together."""

    effort: ClassVar[frozenset[str]] = ExtractorAttack.effort | {"lr"}

    steps: int = 1200
    lr: float = 0.04  # of Adam, on normalized pixels

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.steps >= 1, f"steps is {self.steps}, allowed are whole numbers from 1")
        require(self.lr > 0, f"lr is {self.lr}, allowed are positive numbers")

    def passes(self, n: int) -> float:
        return 2.0 * self.steps

    def loss(self, state: PolytopeState) -> PolytopeLoss:
        """The loss of this attack, which may remember what it found in the step before."""
        raise NotImplementedError

    def propose(self, images: Images, context: AttackContext) -> Tensor:
        state = self.state(images, context)
        loss_of = self.loss(state)
        adam = AdamOnPixels(state.bases, state, self.lr)
        first = last = 0.0
        for number in range(self.steps):
            x = adam.pixels
            loss = loss_of([network.features(x) for network in state.networks])
            (gradient,) = torch.autograd.grad(loss, adam.z)
            last = float(loss.detach())
            first = last if number == 0 else first
            adam.step(gradient)
            context.progress.report(number + 1, self.steps, loss=last)
        context.facts["loss"] = {"first": first, "last": last}
        return adam.pixels.detach() - state.bases
