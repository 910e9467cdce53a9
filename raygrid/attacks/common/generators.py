"""Networks that make the noise from the image: what attacks with one share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from raygrid.attacks.base import AttackContext, ScopedAttack
from raygrid.attacks.common.gradient import GradientAttack
from raygrid.core.images import Images, count_at
from raygrid.core.lazy import nn, no_grad, torch
from raygrid.core.registry import Combination, require
from raygrid.core.seeds import Stream, forked
from raygrid.nn.networks import to_device

if TYPE_CHECKING:
    from torch import Tensor

    from raygrid.attacks.common.unet import UNet

LEAST_BATCH = 2
"""Images of a batch: one has no batch statistics."""


@dataclass(frozen=True, kw_only=True)
class GeneratorAttack(GradientAttack, ScopedAttack):
    """Base of attacks that train a U-Net whose output, times the budget, is the noise of an image.

    Which of the U-Nets of a search is taken is decided by held-out training images.
    """

    effort: ClassVar[frozenset[str]] = GradientAttack.effort | {"levels", "width"}
    holds: ClassVar[float] = 5.0

    held_out: float = 0.1  # share of the training set
    width: int = 64  # channels of the U-Net's first level
    levels: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("width", "levels"):
            value = getattr(self, name)
            require(value >= 1, f"{name} is {value}, allowed are whole numbers from 1")
        require(0 < self.held_out < 1, f"held_out is {self.held_out}, allowed are 0 to 1, open")

    @property
    def multiple(self) -> int:
        """What the image side has to divide by."""
        return 2 ** (self.levels - 1)

    def skip(self, combination: Combination) -> str | None:
        if combination.image_size % self.multiple:
            return (
                f"{self.id} takes sides divisible by {self.multiple}, not {combination.image_size}"
            )
        ratio = combination.poison_ratio if self.scoped else 1.0
        seen = count_at(ratio, combination.train_size)
        left = seen - self.apart_of(seen)
        if left < LEAST_BATCH:
            return (
                f"{self.id} learns from {LEAST_BATCH} images or more, "
                f"of {seen} there are {left} left"
            )
        return super().skip(combination)

    def apart_of(self, images: int) -> int:
        """How many of so many training images only decide which U-Net is taken."""
        return max(LEAST_BATCH, int(images * self.held_out))

    def owned(self, images: Images, context: AttackContext) -> Images:
        """The images that the attacker may change; raises SpecError for a side that is none."""
        side = images.shape[-1]
        require(side % self.multiple == 0, f"side is {side}, allowed: multiples of {self.multiple}")
        return images if context.owned is None else images.rows(context.owned)

    def generator(self, context: AttackContext) -> UNet:
        """An untrained U-Net on the device."""
        from raygrid.attacks.common.unet import UNet

        with forked(context.stream.seed("generator")):
            made = UNet(self.width, self.levels)
        return to_device(made, context.device, True)

    @no_grad
    def noise(self, generator: nn.Module, images: Images, device: torch.device) -> Tensor:
        """The noise of a network in eval mode for all images, float32, within the budget."""
        generator.eval()
        parts = []
        for rows in torch.arange(len(images)).split(self.batch_size):
            x = images.floats(rows.to(images.pixels.device)).to(device)
            parts.append(generator(x) * self.radius)
        return torch.cat(parts)


def kept_apart(images: Images, cut: int, stream: Stream) -> tuple[Images, Images]:
    """The images in order without so many of them at random, and these."""
    order = torch.randperm(len(images), generator=stream.generator("held_out"))
    return images.rows(order[cut:].sort().values), images.rows(order[:cut])


@no_grad
def batch_accuracy(classifier: nn.Module, images: Images, at_once: int) -> float:
    """Share of images that the classifier gets right in training mode, batch by batch.

    The batches are of equal size, as nearly as can be, and at most `at_once` images.
    """
    classifier.train()
    rows = torch.arange(len(images), device=images.pixels.device)
    hits = torch.zeros((), dtype=torch.int64, device=rows.device)
    for part in rows.tensor_split(math.ceil(len(rows) / at_once)):
        hits += (classifier(images.floats(part)).argmax(1) == images.labels[part]).sum()
    return int(hits) / len(images)
