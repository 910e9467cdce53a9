"""Noise predictors that defenses start from, fitted to images that these never see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from raygrid.core.hashing import key_of
from raygrid.core.seeds import Stream
from raygrid.core.speed import Speed
from raygrid.nn.context import FitContext
from raygrid.nn.diffusion import DenoiserPlan, fitted
from raygrid.storage.store import Bundle
from raygrid.trials.artifacts.base import Artifact, BuildContext
from raygrid.trials.artifacts.dataset import START, DatasetArtifact, World


@dataclass(frozen=True)
class DenoiserArtifact(Artifact):
    """The weights of a noise predictor of a dataset's clean training images.

    One for all seeds, as everybody who loads a published one has.
    """

    data: DatasetArtifact
    content: str
    plan: DenoiserPlan
    kind: ClassVar[str] = "denoiser"

    @property
    def cost(self) -> float:
        """The cost in epochs of a ResNet-18 on the same images, for estimates."""
        return self.plan.cost(self.data.train_size)

    @property
    def key(self) -> str:
        augmentation = self.data.dataset.augmentation
        return key_of([self.kind, self.content, self.plan.resolved(), augmentation])

    @property
    def label(self) -> str:
        return f"{self.plan.size} on {self.data.label}"

    @property
    def nbytes(self) -> int:
        return self.plan.nbytes

    def seconds(self, speed: Speed) -> float:
        return START + self.data.epoch_seconds(self.cost, speed)

    def needs(self) -> tuple[Artifact, ...]:
        return (self.data,)

    def make(self, inputs: Sequence[Bundle], context: BuildContext) -> Bundle:
        dataset = self.data.dataset
        stream = Stream("prior", (dataset.id,))
        fit_context = FitContext(stream, context.device, augmentation=dataset.augmentation)
        weights = fitted(self.plan, World.of(inputs[0]).train, fit_context, context.progress)
        return Bundle({name: weight.cpu() for name, weight in weights.items()})
