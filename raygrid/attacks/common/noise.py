"""The noise of a training set in the making, sample-wise and class-wise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from raygrid.attacks.base import AttackContext
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
    """The noise of every image, float32 (N, C, H, W) on the device.

    rows: the only ones that ever change; None: all. boxed: images + noise stay in [0, 1].
    clipped: whether at least what is shown does.
    """

    clipped: ClassVar[bool] = True

    def __init__(
        self, images: Images, start: Tensor, rows: Tensor | None = None, boxed: bool = True
    ) -> None:
        self.images = images
        self.values = start
        self.rows = torch.arange(len(images), device=start.device) if rows is None else rows
        self.boxed = boxed

    def of(self, index: Tensor) -> Tensor:
        """Noise (n, C, H, W) of these rows of the training set."""
        return self.values[index]

    def shown(self, index: Tensor) -> Tensor:
        """Noisy images (n, C, H, W), in [0, 1] if they are clipped."""
        noisy = self.images.floats(index).add_(self.of(index))
        return noisy.clamp_(0, 1) if self.clipped else noisy

    def descend(
        self, index: Tensor, keep: int, loss: Loss, descent: Descent, rng: torch.Generator
    ) -> None:
        """Signed steps for a batch, with fresh draws each; the first `keep` rows take the result.

        Every projection is into ball and pixel range.
        """
        moved = self.moved(index, self.shown(index), loss, descent, rng)
        if self.boxed:
            x = self.images.floats(index)
            moved = (x + moved).clamp_(0, 1).sub_(x)
        self.values[index[:keep]] = moved[:keep]

    def moved(
        self, index: Tensor, start: Tensor, loss: Loss, descent: Descent, rng: torch.Generator
    ) -> Tensor:
        """Where the steps lead from noisy images: noise within the ball, (n, C, H, W)."""
        x, labels = self.images.floats(index), self.images.labels[index]

        def slope(z: Tensor, step: int) -> tuple[Tensor, Tensor]:
            return gradient(loss, NoisyBatch(z, x, labels, rng))

        return descent.follow(x, start, slope)[0]

    def delta(self) -> Tensor:
        """The noise of all rows (N, C, H, W)."""
        return self.values

    def tensors(self) -> dict[str, Tensor]:
        """What lasts from round to round."""
        return {"noise": self.values}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `tensors`, in place; other names in the mapping are left alone."""
        for name, mine in self.tensors().items():
            mine.copy_(tensors[name])


class ClassNoise(SampleNoise):
    """One noise for every class, (classes, C, H, W); clipped to the pixel range only when shown.

    rule: how a batch changes it. `sum`: a class goes against the sign of the sum of its images'
    gradients. `mean`: each image descends alone, the class takes the mean of what they reach.
    """

    def __init__(
        self,
        images: Images,
        start: Tensor,
        rows: Tensor | None = None,
        rule: Literal["sum", "mean"] = "sum",
    ) -> None:
        super().__init__(images, start, rows, boxed=False)
        self.rule = rule
        self.owned = torch.zeros(len(images), 1, 1, 1, device=start.device)
        self.owned[self.rows] = 1

    def of(self, index: Tensor) -> Tensor:
        return self.values[self.images.labels[index]] * self.owned[index]

    def descend(
        self, index: Tensor, keep: int, loss: Loss, descent: Descent, rng: torch.Generator
    ) -> None:
        if self.rule == "mean":
            moved = self.moved(index, self.shown(index), loss, descent, rng)[:keep]
            labels = self.images.labels[index[:keep]]
            means, present = class_means(moved, labels, len(self.values))
            self.values[present] = means[present]
        else:
            self.against_sums(index, loss, descent, rng)

    def against_sums(
        self, index: Tensor, loss: Loss, descent: Descent, rng: torch.Generator
    ) -> None:
        x, labels = self.images.floats(index), self.images.labels[index]
        members = nn.functional.one_hot(labels, len(self.values)).T.to(x.dtype)
        for _ in range(descent.steps):
            noisy = x + self.values[labels]
            shown = noisy.clamp(0, 1) if self.clipped else noisy
            _, slope = gradient(loss, NoisyBatch(shown, x, labels, rng))
            slope *= shown == noisy  # clipped pixels do not follow the noise
            total = (members @ slope.flatten(1)).view_as(self.values)
            check_finite(total.sum())
            self.values.sub_(total.sign_(), alpha=descent.step)
            self.values.clamp_(-descent.radius, descent.radius)

    def delta(self) -> Tensor:
        return self.values[self.images.labels] * self.owned


def class_means(values: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Mean of (n, ...) values by label, (classes, ...), and which classes occur, bool (classes,).

    A product with the one-hot matrix: unlike scattered sums it has one order on every device.
    """
    members = nn.functional.one_hot(labels, classes).T.to(values.dtype)
    counts = members.sum(1)
    sums = members @ values.flatten(1)
    means = sums / counts.clamp_min(1)[:, None]
    return means.view(classes, *values.shape[1:]), counts > 0


def gradient(loss: Loss, shown: NoisyBatch) -> tuple[Tensor, Tensor]:
    """The loss of a noisy batch and its gradient in the images."""
    z = shown.z.detach().requires_grad_()
    value = loss(replace(shown, z=z))
    (slope,) = torch.autograd.grad(value, z)
    return value.detach(), slope


def uniform_start(rows: int, images: Images, radius: float, context: AttackContext) -> Tensor:
    """Noise uniform in [-radius, radius], (rows, C, H, W) on the device, one draw for each row."""
    draws = context.stream.rows("start", torch.arange(rows), images.shape, "uniform")
    return draws.mul_(2).sub_(1).mul_(radius).to(context.device)
