"""The noise of a training set in the making, sample-wise and class-wise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from raygrid.core.images import Images
from raygrid.core.lazy import nn, torch
from raygrid.nn.pgd import Descent, check_finite

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class NoisyBatch:
    """A noisy batch: z float32 (n, C, H, W) in [0, 1], the clean x, labels y (n,), draws."""

    z: Tensor
    x: Tensor
    y: Tensor
    rng: torch.Generator


Loss: TypeAlias = "Callable[[NoisyBatch], Tensor]"
"""A scalar to be lowered."""


class SampleNoise:
    """The noise of every image, float32 (N, C, H, W) on the device; images + noise in [0, 1]."""

    def __init__(self, images: Images, start: Tensor) -> None:
        self.images = images
        self.values = start

    def of(self, index: Tensor) -> Tensor:
        """Noise (n, C, H, W) of these rows of the training set."""
        return self.values[index]

    def shown(self, index: Tensor) -> Tensor:
        """Noisy images (n, C, H, W) in [0, 1]."""
        return self.images.floats(index).add_(self.of(index)).clamp_(0, 1)

    def descend(
        self, index: Tensor, keep: int, loss: Loss, descent: Descent, rng: torch.Generator
    ) -> None:
        """Signed steps for a batch, with fresh draws each; the first `keep` rows take the result.

        Every projection is into ball and pixel range.
        """
        x, labels = self.images.floats(index), self.images.labels[index]

        def slope(z: Tensor, step: int) -> tuple[Tensor, Tensor]:
            return gradient(loss, NoisyBatch(z, x, labels, rng))

        moved, _ = descent.follow(x, self.shown(index), slope)
        self.values[index[:keep]] = (x + moved).clamp_(0, 1).sub_(x)[:keep]

    def delta(self) -> Tensor:
        """The noise of all rows (N, C, H, W)."""
        return self.values


class ClassNoise(SampleNoise):
    """One noise for every class, (classes, C, H, W); clipped to the pixel range only when shown.

    A class goes against the sign of the sum of its images' gradients.
    """

    def of(self, index: Tensor) -> Tensor:
        return self.values[self.images.labels[index]]

    def descend(
        self, index: Tensor, keep: int, loss: Loss, descent: Descent, rng: torch.Generator
    ) -> None:
        x, labels = self.images.floats(index), self.images.labels[index]
        members = nn.functional.one_hot(labels, len(self.values)).T.to(x.dtype)
        for _ in range(descent.steps):
            noisy = x + self.values[labels]
            _, slope = gradient(loss, NoisyBatch(noisy.clamp(0, 1), x, labels, rng))
            slope *= (noisy >= 0) & (noisy <= 1)  # clipped pixels do not follow the noise
            total = (members @ slope.flatten(1)).view_as(self.values)
            check_finite(total.sum())
            self.values.sub_(total.sign_(), alpha=descent.step)
            self.values.clamp_(-descent.radius, descent.radius)

    def delta(self) -> Tensor:
        return self.values[self.images.labels]


def gradient(loss: Loss, shown: NoisyBatch) -> tuple[Tensor, Tensor]:
    """The loss of a noisy batch and its gradient in the images."""
    z = shown.z.detach().requires_grad_()
    value = loss(replace(shown, z=z))
    (slope,) = torch.autograd.grad(value, z)
    return value.detach(), slope
