"""Climbing a loss within a ball around images: what adversarial defenses and tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raygrid.core.lazy import nn, torch
from raygrid.core.registry import require

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Ball:
    """Largest change of a channel value, number of sign steps and size of one, in [0, 1].

    Raises SpecError for values out of range.
    """

    radius: float
    steps: int
    step: float

    def __post_init__(self) -> None:
        require(0 <= self.radius <= 1, f"radius is {self.radius}, allowed are 0 to 1")
        require(self.steps >= 0, f"steps is {self.steps}, allowed are whole numbers from 0")
        require(self.step > 0, f"step is {self.step}, allowed are positive numbers")

    def inside(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """Uniform in the ball around x, clipped to [0, 1]."""
        noise = torch.rand(x.shape, generator=rng, device=rng.device, dtype=x.dtype)
        return (x + self.radius * (2 * noise - 1)).clamp(0, 1)

    def climb(self, loss: Callable[[Tensor], Tensor], x: Tensor, start: Tensor) -> Tensor:
        """Images (n, C, H, W) in [0, 1] within `radius` of x where `loss` (a scalar) is higher.

        From `start`; every step is projected onto the ball and clipped.
        """
        moved = start
        with torch.enable_grad():
            for _ in range(self.steps):
                moved = moved.detach().requires_grad_(True)
                (slope,) = torch.autograd.grad(loss(moved), moved)
                moved = moved.detach() + self.step * slope.sign()
                moved = torch.clamp(moved, x - self.radius, x + self.radius).clamp_(0, 1)
        return moved.detach()


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """The model in eval mode and without parameter gradients; both are restored."""
    modes = [(module, module.training) for module in model.modules()]
    learned = [p for p in model.parameters() if p.requires_grad]
    model.eval()
    for parameter in learned:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)
        for module, training in modes:
            module.training = training
