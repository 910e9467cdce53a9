"""A network with one hidden layer, trained as UDP trains it: for its defense and its detector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raygrid.architectures import ARCHITECTURES
from raygrid.core.images import Images
from raygrid.nn.context import FitContext
from raygrid.nn.networks import freeze, untrained
from raygrid.nn.recipes import Recipe
from raygrid.nn.steps import Batch, Step, classify_step
from raygrid.nn.trainer import Trainer

if TYPE_CHECKING:
    from torch import Tensor, nn

NetworkInput = Callable[["nn.Module", Batch], "Tensor"]
"""What a network sees of a batch: float32 (n, C, H, W) in [0, 1]."""


@dataclass(frozen=True)
class TwoLayerFit:
    """SGD at 0.01, a tenth of it from 75 and from 90 % of the epochs on, in batches of 128.

    hala64/udp@ec21d72 (sdaan.py, poison_detection.py), for CIFAR-10. min_steps: smaller sets are
    cut into smaller batches, so that there are as many steps.
    """

    epochs: int = 100
    min_steps: int = 0

    @property
    def recipe(self) -> Recipe:
        falls = tuple(max(1, round(self.epochs * share)) for share in (0.75, 0.9))
        return Recipe(
            epochs=self.epochs,
            lr=0.01,
            schedule="step",
            milestones=falls,
            precision="fp32",
            min_steps=self.min_steps,
        )

    def __call__(self, images: Images, fit_context: FitContext, shown: NetworkInput) -> nn.Module:
        """The network after its training on what it is shown of the images, frozen."""
        kind = ARCHITECTURES.make("two_layer")
        network = untrained(kind, images, fit_context.stream.seed("init"), fit_context.device)

        def step(batch: Batch) -> Step:
            batch.x = shown(network, batch)
            return classify_step(network, batch, "fp32")

        here = images.to(fit_context.device)
        trainer = Trainer(network, step, here, self.recipe, fit_context.stream)
        for epoch in range(self.epochs):
            trainer.epoch(epoch)
        return freeze(network)
