"""Noise that is held within its budget alone: images + noise may leave the pixel range."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from raygrid.attacks.common.noise import Loss, NoisyBatch, SampleNoise, gradient
from raygrid.nn.pgd import Descent, check_finite

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class FreeNoise(SampleNoise):
    """Steps within the budget alone; subclasses say where a step starts from."""

    def descend(
        self, index: Tensor, keep: int, loss: Loss, descent: Descent, rng: torch.Generator
    ) -> None:
        x, labels, values = self.images.floats(index), self.images.labels[index], self.of(index)
        total = x.new_zeros(())
        for _ in range(descent.steps):
            noisy = x + values
            shown = noisy.clamp(0, 1) if self.clipped else noisy
            _, slope = gradient(loss, NoisyBatch(shown, x, labels, rng))
            total += slope.sum()
            values = self.stepped(noisy, x, values, slope, descent)
            values.clamp_(-descent.radius, descent.radius)
        check_finite(total)
        self.values[index[:keep]] = values[:keep]

    def stepped(
        self, noisy: Tensor, x: Tensor, values: Tensor, slope: Tensor, descent: Descent
    ) -> Tensor:
        """The noise after a step, before it is cut off at the budget: a new tensor (n, C, H, W).

        noisy: x + values, of clean images and their noise; slope: the gradient. Both may be written
        over.
        """
        raise NotImplementedError


class LooseNoise(FreeNoise):
    """The noise of every image, clipped to the pixel range when shown, as in the code of CP.

    Pixels that are clipped do not follow the noise.
    """

    def stepped(
        self, noisy: Tensor, x: Tensor, values: Tensor, slope: Tensor, descent: Descent
    ) -> Tensor:
        slope *= noisy.clamp(0, 1) == noisy
        return values.sub(slope.sign_(), alpha=descent.step)


class OvershootNoise(FreeNoise):
    """The noise of every image; images + noise may leave [0, 1] by the last step, as in TUE's code.

    Each step starts at the images cut off at 0 and 1. A loss gets images that are not cut off, as a
    network in training does; see `cut_off`.
    """

    clipped: ClassVar[bool] = False

    def stepped(
        self, noisy: Tensor, x: Tensor, values: Tensor, slope: Tensor, descent: Descent
    ) -> Tensor:
        moved = noisy.clamp_(0, 1).sub_(slope.sign_(), alpha=descent.step)
        return moved.sub_(x)


def cut_off(noisy: Tensor) -> Tensor:
    """Images cut off at 0 and 1, of any shape; gradients pass where nothing was cut.

    The ends pass them too, unlike those of `torch.clamp` in recent versions.
    """
    inside = (noisy >= 0) & (noisy <= 1)
    return noisy.clamp(0, 1).detach() + (noisy - noisy.detach()) * inside
