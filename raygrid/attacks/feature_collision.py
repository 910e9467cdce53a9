"""Feature collision: every poison looks like its base and lies on the target in feature space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from raygrid.attacks.base import ATTACKS, AttackContext
from raygrid.attacks.common.targeted import ExtractorAttack, PolytopeState
from raygrid.core.images import Images
from raygrid.core.lazy import torch
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card, require

if TYPE_CHECKING:
    from torch import Tensor

LEAST_MOVE = 1e-5
"""Poisons whose accepted moves are all shorter than this share of their length are done."""


@ATTACKS.register("feature_collision")
@dataclass(frozen=True, kw_only=True)
class FeatureCollision(ExtractorAttack):
    """Descends ||f(x) - f(target)||^2 from a faint watermark of the target.

    monotone: a step that does not lower a poison's loss is taken back and its size halved.
    released: as the benchmark's code runs: the watermark is not projected before its loss is
    measured, the loss before a step is held against that of the last accepted one, and a rejected
    size shrinks to a fifth for good. It hardly moves.
    penalty: no budget but `weight` * ||x - base||^2 (Shafahi et al.); give it budget=255/255.
    """

    card = Card(
        paper="Shafahi et al. 2018 (Poison Frogs), algorithm 1; as in Schwarzschild et al. 2021",
        code="aks2203/poisoning-benchmark@97a67ae",
        published={
            "cifar10/feature_collision(variant=released)/standard/resnet18/linear_probe"
            "/just_how_toxic/0": 0.22,
        },
        needs="extractors that the protocol pre-trains",
        cost="2 forward passes and 1 backward pass a step and base",
        notes="published numbers are those of `released`, a bug of the benchmark; the default is "
        "what the papers describe. `weight` is the code's for networks that normalize their input, "
        "as all do here; for others, which the first paper has, it is 0.1",
    )
    quick: ClassVar[Mapping[str, Scalar]] = {"surrogate": "small_cnn", "step": 0.01}
    tiny: ClassVar[Mapping[str, Scalar]] = {"surrogate": "small_cnn", "steps": 6, "step": 0.01}
    effort: ClassVar[frozenset[str]] = ExtractorAttack.effort | {"step"}

    variant: Literal["monotone", "released", "penalty"] = "monotone"
    steps: int = 120
    step: float = 0.001  # first size, on squared feature distances
    watermark: float = 0.3  # share of the target in the start
    weight: float = 4.0  # of the distance to the base (penalty)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.steps >= 0, f"steps is {self.steps}, allowed are whole numbers from 0")
        require(self.step > 0, f"step is {self.step}, allowed are positive numbers")
        require(self.weight >= 0, f"weight is {self.weight}, allowed are numbers from 0")
        require(0 <= self.watermark <= 1, f"watermark is {self.watermark}, allowed are 0 to 1")

    def passes(self, n: int) -> float:
        return 2.0 * self.steps

    def propose(self, images: Images, context: AttackContext) -> Tensor:
        state = self.state(images, context)
        start = self.watermark * state.target + (1 - self.watermark) * state.bases
        run = self._released if self.variant == "released" else self._monotone
        x, accepted = run(state, start, context)
        context.facts["accepted"] = accepted.tolist()
        return state.clip(x) - state.bases

    def _monotone(
        self, state: PolytopeState, start: Tensor, context: AttackContext
    ) -> tuple[Tensor, Tensor]:
        x = state.clip(start)
        sizes = torch.full((len(x),), self.step, device=x.device)
        accepted = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        losses, slope = collide(state, x)
        for number in range(self.steps):
            moved = self._forward_backward(state, x, sizes.view(-1, 1, 1, 1), slope)
            after, next_slope = collide(state, moved)
            better = self._total(state, moved, after) <= self._total(state, x, losses)
            far = (moved - x).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1).clamp_min(1e-12)
            keep = better.view(-1, 1, 1, 1)
            x, slope = torch.where(keep, moved, x), torch.where(keep, next_slope, slope)
            losses = torch.where(better, after, losses)
            accepted += better
            sizes = torch.where(better, sizes, sizes / 2)
            context.progress.report(number + 1, self.steps)
            if bool(better.all()) and bool((far < LEAST_MOVE).all()):
                break
        context.facts["loss"] = float(losses.mean())
        return x, accepted

    def _forward_backward(
        self, state: PolytopeState, x: Tensor, sizes: Tensor, slope: Tensor
    ) -> Tensor:
        moved = x - sizes * slope
        if self.variant == "penalty":
            pull = sizes * self.weight
            moved = (moved + pull * state.bases) / (1 + pull)
        return state.clip(moved)

    def _total(self, state: PolytopeState, x: Tensor, losses: Tensor) -> Tensor:
        if self.variant != "penalty":
            return losses
        return losses + self.weight * (x - state.bases).flatten(1).square().sum(1)

    def _released(
        self, state: PolytopeState, start: Tensor, context: AttackContext
    ) -> tuple[Tensor, Tensor]:
        x = start
        sizes = torch.full((len(x),), self.step, device=x.device)
        accepted = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        last, _ = collide(state, x)
        for number in range(self.steps):
            losses, slope = collide(state, x)
            better = losses <= last
            moved = state.clip(x - sizes.view(-1, 1, 1, 1) * slope)
            x = torch.where(better.view(-1, 1, 1, 1), moved, x)
            last = torch.where(better, losses, last)
            accepted += better
            sizes = torch.where(better, sizes, 0.2 * sizes)
            context.progress.report(number + 1, self.steps)
        return x, accepted


def collide(state: PolytopeState, x: Tensor) -> tuple[Tensor, Tensor]:
    """Squared feature distances to the target, summed over extractors, (K,), and their slope."""
    x = x.detach().requires_grad_()
    losses = torch.zeros(len(x), device=x.device)
    for network, wanted in zip(state.networks, state.targets, strict=True):
        losses = losses + (network.features(x) - wanted).square().sum(1)
    (slope,) = torch.autograd.grad(losses.sum(), x)
    return losses.detach(), slope
