"""Noise whose last step may leave the pixel range, as in the code of TUE."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from raygrid.attacks.common.noise import Loss, NoisyBatch, SampleNoise, gradient
from raygrid.nn.pgd import Descent, check_finite

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class OvershootNoise(SampleNoise):
    """The noise of every image; images + noise may leave [0, 1] by the last step.

    Each step starts at the images cut off at 0 and 1 and ends within the budget alone. A loss gets
    images that are not cut off, as a network in training does; see `cut_off`.
    """

    clipped: ClassVar[bool] = False

    def descend(
        self, index: Tensor, keep: int, loss: Loss, descent: Descent, rng: torch.Generator
    ) -> None:
        x, labels, values = self.images.floats(index), self.images.labels[index], self.of(index)
        total = x.new_zeros(())
        for _ in range(descent.steps):
            noisy = x + values
            _, slope = gradient(loss, NoisyBatch(noisy, x, labels, rng))
            total += slope.sum()
            moved = noisy.clamp_(0, 1).sub_(slope.sign_(), alpha=descent.step)
            values = moved.sub_(x).clamp_(-descent.radius, descent.radius)
        check_finite(total)
        self.values[index[:keep]] = values[:keep]


def cut_off(noisy: Tensor) -> Tensor:
    """Images cut off at 0 and 1, of any shape; gradients pass where nothing was cut.

    The ends pass them too, unlike those of `torch.clamp` in recent versions.
    """
    inside = (noisy >= 0) & (noisy <= 1)
    return noisy.clamp(0, 1).detach() + (noisy - noisy.detach()) * inside
