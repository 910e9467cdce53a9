"""Projected gradient descent on pixels: what attacks, adversarial defenses and tests share.

Networks are frozen here (eval mode, no parameter gradients), so images are independent; those that
are `fixed` keep their mode, and in training mode batch norms tie images together. Losses are
summed, never averaged: only signs are used, or directions of each image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from raygrid.core import draws
from raygrid.core.errors import DivergedError
from raygrid.core.lazy import nn, torch
from raygrid.core.registry import require

if TYPE_CHECKING:
    from torch import Tensor

Objective: TypeAlias = "Callable[[Tensor, int], Tensor]"
"""(images float32 (n, C, H, W), number of the step) -> loss of each image (n,), to be lowered."""

Slope: TypeAlias = "Callable[[Tensor, int], tuple[Tensor, Tensor]]"
"""(images, number of the step) -> losses (n,) and the gradient to go against."""

Direction: TypeAlias = "Callable[[Tensor], Tensor]"
"""Input gradient, which may be overwritten -> what is gone against, in units of the step."""


def sign(gradient: Tensor) -> Tensor:
    return gradient.sign_()


@dataclass(frozen=True)
class Taken:
    """A step: where it leads, projected (z) and not (moved), losses before it, and a check.

    total: the sum of the gradient, a scalar that is not finite if any value of it is not.
    """

    z: Tensor
    moved: Tensor
    losses: Tensor
    total: Tensor


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
        moved, losses, total = start, torch.zeros(len(x), device=x.device), x.new_zeros(())
        for taken in self.path(x, start, slope, direction):
            moved, losses = taken.moved, taken.losses
            total += taken.total
        check_finite(total)
        return self._within(moved.sub(x)), losses

    def path(
        self, x: Tensor, start: Tensor, slope: Slope, direction: Direction = sign
    ) -> Iterator[Taken]:
        """The steps one after the other; nothing is read from the device."""
        into = self._into(x)
        z = start
        for step in range(self.steps):
            losses, gradient = slope(z, step)
            total = gradient.sum()
            moved = torch.sub(z, direction(gradient), alpha=self.step)
            z = into(moved)
            yield Taken(z, moved, losses, total)

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


def negative(objective: Objective) -> Objective:
    """The objective to be raised instead."""
    return lambda z, step: -objective(z, step)


def uniform(like: Tensor, radius: float, rng: torch.Generator) -> Tensor:
    """Uniform noise in [-radius, radius] of the same shape."""
    return draws.rand(like.shape, rng, like.device).mul_(2).sub_(1).mul_(radius)


@dataclass(frozen=True)
class Ball:
    """Largest change of a channel value, number of sign steps and size of one, in [0, 1].

    Raises SpecError for values out of range.
    """

    most: ClassVar[float] = 1.0  # the largest radius that means anything

    radius: float
    steps: int
    step: float

    def __post_init__(self) -> None:
        allowed = "0 to 1" if self.most == 1 else "finite numbers from 0"
        within = 0 <= self.radius <= self.most and math.isfinite(self.radius)
        require(within, f"radius is {self.radius}, allowed are {allowed}")
        require(self.steps >= 0, f"steps is {self.steps}, allowed are whole numbers from 0")
        require(self.step > 0, f"step is {self.step}, allowed are positive numbers")

    def inside(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """Uniform in the ball around x, clipped to [0, 1]."""
        return (x + uniform(x, self.radius, rng)).clamp_(0, 1)

    def climb(self, loss: Callable[[Tensor], Tensor], x: Tensor, start: Tensor) -> Tensor:
        """Images (n, C, H, W) in [0, 1] within `radius` of x where `loss` (a scalar) is higher.

        From `start`; every step is projected onto the ball and clipped. Gradients that are not
        finite are not looked for: the training step that asks for these images does that.
        """

        def slope(z: Tensor, step: int) -> tuple[Tensor, Tensor]:
            with torch.enable_grad():
                return input_gradient(lambda moved, _: -loss(moved), z)

        moved = start
        for taken in self._path(x, start, slope):
            moved = taken.z
        return moved.detach()

    def _path(self, x: Tensor, start: Tensor, slope: Slope) -> Iterator[Taken]:
        return Descent(self.radius, self.step, self.steps).path(x, start, slope)


@dataclass(frozen=True)
class L2Ball(Ball):
    """The same with Euclidean lengths: radius and step are those of a whole image.

    Raises SpecError for values out of range.
    """

    most: ClassVar[float] = math.inf

    def inside(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """Uniform in the ball around x, clipped to [0, 1]: a direction, and a share of the radius
        whose power to the number of values is uniform."""
        noise = draws.randn(x.shape, rng, x.device)
        share = draws.rand((len(x), 1, 1, 1), rng, x.device).pow(1 / x[0].numel())
        return (x + unit(noise).mul_(self.radius * share)).clamp_(0, 1)

    def _path(self, x: Tensor, start: Tensor, slope: Slope) -> Iterator[Taken]:
        return L2Descent(self.radius, self.step, self.steps).path(x, start, slope, unit)


@contextmanager
def fixed(model: nn.Module) -> Iterator[None]:
    """The model without parameter gradients, in the mode that it is in; restored afterwards."""
    learned = [p for p in model.parameters() if p.requires_grad]
    for parameter in learned:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """The same in eval mode; all modules' modes are restored too."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with fixed(model):
            yield
    finally:
        for module, training in modes:
            module.training = training
