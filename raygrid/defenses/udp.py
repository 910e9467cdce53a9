"""UDP: noise against a two-layer network on stored images, and strong augmentation in training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from raygrid.architectures import ARCHITECTURES
from raygrid.core.images import Images, to_uint8
from raygrid.core.lazy import nn, torch
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card, Combination, require
from raygrid.defenses.base import DEFENSES, Defense, FitContext
from raygrid.nn.augment.views import Views
from raygrid.nn.pgd import Ball, frozen
from raygrid.nn.steps import Batch
from raygrid.nn.two_layer import TwoLayerFit

if TYPE_CHECKING:
    from torch import Tensor

_CHUNK = 1000
"""Images a pass."""


@DEFENSES.register("udp")
@dataclass(frozen=True, kw_only=True)
class Udp(Defense):
    """Raises the loss that a two-layer network has on each stored image, once, before training.

    The network is trained against ten signed steps of `train_step` within `radius`, from the image
    itself; then ten of `step` are added to every image. Training sees crops of 1 - 0.9 `strength`
    to all of the area in place of padded ones, color jitter and gray, all of that strength; with a
    strength of 0 it sees standard augmentation.
    """

    card = Card(
        paper="Zhu, Yu and Gao 2024, Detection and Defense of Unlearnable Examples",
        code="hala64/udp@ec21d72 (sdaan.py, utils.py, model/MLP.py)",
        needs="labels",
        cost="100 epochs of eleven passes through a matrix of all pixels squared: hours of a CPU, "
        "minutes of a GPU",
        notes="images are mirrored where the dataset's may be, before they are cropped, after that "
        "there. Learners made of views show them their own first. There every operation on colors "
        "ends in whole levels. `raygrid evaluate linearity --two-layer` has the detector that "
        "comes before it: this network by its own recipe, whose held-out accuracy is 0.7 or more. "
        "Stored images are cut off to whole levels there, rounded here. The paper's tables were "
        "not read. Version 1 cropped what had been padded and cropped before: 13 % of it was black "
        "at 32 pixels",
    )
    version: ClassVar[int] = 2
    quick: ClassVar[Mapping[str, Scalar]] = {"epochs": 6}
    holds: ClassVar[float] = 1.0
    tiny: ClassVar[Mapping[str, Scalar]] = {"epochs": 1, "steps": 1}
    effort: ClassVar[frozenset[str]] = frozenset({"epochs"})

    radius: float = 8 / 255
    steps: int = 10
    step: float = 1 / 255  # of the noise that is added
    train_step: float = 2 / 255  # while the network is trained
    epochs: int = 100
    strength: float = 1.0  # of the augmentation, 0 to 1

    def __post_init__(self) -> None:
        Ball(self.radius, self.steps, self.step)  # refuses its own parameters
        Ball(self.radius, self.steps, self.train_step)
        require(self.epochs >= 1, f"epochs is {self.epochs}, allowed are whole numbers from 1")
        require(0 <= self.strength <= 1, f"strength is {self.strength}, allowed are 0 to 1")

    @property
    def purify_cost(self) -> float:
        """A pass of its network at 32 pixels counts as a thirtieth of a ResNet-18's."""
        return self.epochs * (2 * self.steps + 3) / 3 / 30

    def purify_cost_of(self, images: int, side: int) -> float:
        """It grows with the fourth power of the side, a ResNet-18 with the second."""
        return self.purify_cost * (side / 32) ** 2

    @property
    def fit(self) -> TwoLayerFit:
        """How the network is trained."""
        return TwoLayerFit(self.epochs)

    @property
    def crops(self) -> bool:
        return self.strength > 0

    def purify(self, images: Images, fit_context: FitContext) -> Images:
        here = images.to(fit_context.device)
        network = self.network(here, fit_context)
        ball, parts = Ball(self.radius, self.steps, self.step), []
        for rows in torch.arange(len(here)).split(_CHUNK):
            x, labels = here.floats(rows.to(here.pixels.device)), here.labels[rows]
            parts.append(to_uint8(raised(network, x, labels, ball)).to(images.pixels.device))
        return images.with_pixels(torch.cat(parts))

    def network(self, images: Images, fit_context: FitContext) -> nn.Module:
        """The two-layer network after its adversarial training, frozen."""
        ball = Ball(self.radius, self.steps, self.train_step)

        def attacked(network: nn.Module, batch: Batch) -> Tensor:
            with frozen(network):
                return raised(network, batch.x, batch.y, ball)

        return self.fit(images, fit_context, attacked)

    def skip(self, combination: Combination) -> str | None:
        misfit = ARCHITECTURES.make("two_layer").skip(combination)
        return f"{self.id}: {misfit}" if misfit else super().skip(combination)

    def augment(self, x: Tensor, y: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        return (Views.of_strength(self.strength, flip=False)(x, rng) if self.crops else x), y


def raised(network: nn.Module, x: Tensor, labels: Tensor, ball: Ball) -> Tensor:
    """Images (n, C, H, W) in [0, 1] within the ball, from x itself, whose loss is higher."""
    return ball.climb(lambda moved: nn.functional.cross_entropy(network(moved), labels), x, x)
