"""Linear classifiers of pixels: a fit that takes seconds, for the defense `op`."""

from __future__ import annotations

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
    from torch import nn


@dataclass(frozen=True)
class LinearFit:
    """Softmax regression without bias by SGD, pixels in [0, 1] as they are.

    falls: shares of the training before which the rate is divided by 10. min_steps: smaller sets
    are cut into smaller batches, so that there are as many steps.
    """

    epochs: int
    lr: float
    batch_size: int
    falls: tuple[float, ...] = ()
    min_steps: int = 0

    @property
    def recipe(self) -> Recipe:
        return Recipe(
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            momentum=0.0,
            weight_decay=0.0,
            schedule="step",
            milestones=tuple(max(1, int(self.epochs * share)) for share in self.falls),
            shuffle=False,
            precision="fp32",
            min_steps=self.min_steps,
        )

    def __call__(self, images: Images, fit_context: FitContext) -> nn.Linear:
        """The fitted layer on the device, frozen; weight (classes, C * H * W)."""
        kind = ARCHITECTURES.make("linear")
        device = fit_context.device
        network = untrained(kind, images, fit_context.stream.seed("init"), device)

        def step(batch: Batch) -> Step:
            return classify_step(network, batch, "fp32")

        trainer = Trainer(network, step, images.to(device), self.recipe, fit_context.stream)
        for epoch in range(self.epochs):
            trainer.epoch(epoch)
        return freeze(network).head
