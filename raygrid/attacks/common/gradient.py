"""Signed-gradient descent on pixels under linf: what gradient attacks share.

Networks are frozen here (eval mode, no parameter gradients), so images are independent and any
batch of them can be made alone. Losses are summed, never averaged: only signs are used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from raygrid.architectures import ARCHITECTURES
from raygrid.attacks.base import Attack, AttackContext
from raygrid.core.budget import Budget
from raygrid.core.errors import DivergedError
from raygrid.core.images import Images, to_uint8
from raygrid.core.lazy import nn, torch
from raygrid.core.registry import Combination, require
from raygrid.core.spec import Scalar

if TYPE_CHECKING:
    from torch import Tensor

Objective: TypeAlias = "Callable[[Tensor, int], Tensor]"
"""(images float32 (n, C, H, W), number of the step) -> loss of each image (n,), to be lowered."""

Slope: TypeAlias = "Callable[[Tensor, int], tuple[Tensor, Tensor]]"
"""(images, number of the step) -> losses (n,) and the gradient to go against."""

Direction: TypeAlias = "Callable[[Tensor], Tensor]"
"""Input gradient, which may be overwritten -> what is gone against, in units of the step."""


@dataclass(frozen=True, kw_only=True)
class GradientAttack(Attack):
    """Base of attacks that differentiate a network with respect to its input."""

    tiny: ClassVar[Mapping[str, Scalar]] = {"surrogate": "small_cnn", "batch_size": 16}

    budget: Budget = Budget("linf", 8 / 255)
    surrogate: str = "resnet18"  # architecture of the network that is differentiated
    batch_size: int = 512  # images of one gradient step

    def __post_init__(self) -> None:
        super().__post_init__()
        ARCHITECTURES.expect(self.surrogate)
        require(self.batch_size >= 2, f"batch_size is {self.batch_size}, allowed are 2 and more")

    @property
    def radius(self) -> float:
        """The largest change of a value, in units of the pixel range [0, 1]."""
        return self.budget.value

    @property
    def grain(self) -> int:  # type: ignore[override]  # a constant of other attacks
        """Whole batches: a last one that is not full costs what a full one costs."""
        return self.batch_size

    def skip(self, cell: Combination) -> str | None:
        reason = ARCHITECTURES.make(self.surrogate).skip(cell)
        return f"no surrogate for {self.id}: {reason}" if reason else None


def sign(gradient: Tensor) -> Tensor:
    return gradient.sign_()


@dataclass(frozen=True)
class Descent:
    """Steps of fixed size against the input gradient, by default against its sign.

    radius: largest change of a value; step: change of one step; both in units of the pixel range
    [0, 1]. box: clip to the pixel range after every step.
    """

    radius: float
    step: float
    steps: int
    box: bool = True

    def __call__(
        self, x: Tensor, start: Tensor, objective: Objective, direction: Direction = sign
    ) -> tuple[Tensor, Tensor]:
        """Descend from `start`; x and start are float32 (n, C, H, W), x in [0, 1].

        After every step the images are within `radius` of x and in [0, 1]; `start` is used as it
        is. Returns the perturbation within `radius`, not yet clipped to the pixel range
        (error-minimizing noise is stored that way), and the losses (n,) before the last step.
        Raises DivergedError for gradients that are not finite.
        """
        return self.follow(x, start, partial(input_gradient, objective), direction)

    def follow(
        self, x: Tensor, start: Tensor, slope: Slope, direction: Direction = sign
    ) -> tuple[Tensor, Tensor]:
        """The same for a gradient that comes from anywhere."""
        into = self._into(x)
        z = moved = start
        losses = torch.zeros(len(x), device=x.device)
        total = x.new_zeros(())
        for step in range(self.steps):
            losses, gradient = slope(z, step)
            total += gradient.sum()
            moved = torch.sub(z, direction(gradient), alpha=self.step)
            z = into(moved)
        check_finite(total)
        return self._within(moved.sub(x)), losses

    def _into(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """The projection into ball and box; the bounds are made once."""
        low, high = x - self.radius, x + self.radius
        if self.box:
            low, high = low.clamp_(min=0), high.clamp_(max=1)
        return lambda moved: torch.clamp(moved, low, high)

    def _within(self, delta: Tensor) -> Tensor:
        return delta.clamp_(-self.radius, self.radius)


def check_finite(total: Tensor) -> None:
    """Raises DivergedError if a sum over gradients is not finite: the sign of NaN would be 0."""
    value = float(total)
    if not math.isfinite(value):
        raise DivergedError(None, value, "noise", "gradient")


@dataclass(frozen=True)
class L2Descent(Descent):
    """The same with Euclidean lengths: radius and step are those of a whole image."""

    def _into(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda moved: self._within(moved - x).add_(x).clamp_(0, 1)

    def _within(self, delta: Tensor) -> Tensor:
        return delta.mul_((self.radius / lengths(delta)).clamp_(max=1))


def lengths(values: Tensor) -> Tensor:
    """Euclidean length of each image, (n, 1, 1, 1), never zero."""
    return values.flatten(1).norm(dim=1).add_(1e-10).view(-1, 1, 1, 1)


def unit(gradient: Tensor) -> Tensor:
    """The direction of an `L2Descent`."""
    return gradient.div_(lengths(gradient))


def input_gradient(objective: Objective, z: Tensor, step: int = 0) -> tuple[Tensor, Tensor]:
    """Losses (n,) at images z and the gradient of each with respect to its own image."""
    z = z.detach().requires_grad_()
    losses = objective(z, step)
    (gradient,) = torch.autograd.grad(losses.sum(), z)
    return losses.detach(), gradient


def cross_entropy(network: nn.Module, labels: Tensor) -> Objective:
    """The cross-entropy of each image with its label; labels int64 (n,) on the device."""

    def losses(z: Tensor, step: int) -> Tensor:
        return nn.functional.cross_entropy(network(z), labels, reduction="none")

    return losses


def next_class(labels: Tensor, classes: int) -> Tensor:
    """The class after the label, (label + 1) mod classes: where most targeted attacks push."""
    return (labels + 1) % classes


def negative(objective: Objective) -> Objective:
    """The objective to be raised instead."""
    return lambda z, step: -objective(z, step)


def uniform(like: Tensor, radius: float, rng: torch.Generator) -> Tensor:
    """Uniform noise in [-radius, radius] of the same shape."""
    return torch.rand(like.shape, generator=rng, device=like.device).mul_(2).sub_(1).mul_(radius)


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Eval mode without parameter gradients, which halves a backward pass; then as it was."""
    training = network.training
    gradients = [(p, p.requires_grad) for p in network.parameters()]
    network.eval()
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.train(training)
        for parameter, wanted in gradients:
            parameter.requires_grad_(wanted)


def in_batches(
    images: Images, context: AttackContext, size: int, make: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Poisoned pixels uint8 (n, C, H, W) for the rows of `context`, batch by batch.

    make: (x float32 (size, C, H, W) on the device, rows int64 (size,)) -> perturbation of that
    shape. Every batch has `size` rows (the last is filled up by repeating one), so that on a CPU
    the bytes do not depend on how the rows were split. Finished batches are kept in
    `context.progress`, about twenty times in all.
    """
    index = context.index(images)
    pixels = images.pixels[index].clone()
    done = 0
    saved = context.progress.load()
    if saved is not None:
        done = int(saved[1]["done"])
        pixels[:done] = saved[0]["pixels"]
    seldom = max(1, len(index) // size // 20)
    for start in range(done, len(index), size):
        rows = index[start : start + size]
        full = torch.cat([rows, rows[-1:].expand(size - len(rows))])
        x = images.floats(full).to(context.device)
        stop = start + len(rows)
        pixels[start:stop] = to_uint8(make(x, full).add_(x)[: len(rows)]).cpu()
        context.progress.report(stop, len(index))
        if start // size % seldom == 0:
            context.progress.save({"pixels": pixels[:stop]}, {"done": stop})
    return pixels
