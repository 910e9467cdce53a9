"""Noise predictors that defenses start from, fitted to images that these never see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from raygrid.core.errors import DataError
from raygrid.core.hashing import key_of
from raygrid.core.seeds import Stream
from raygrid.core.speed import Speed
from raygrid.nn.context import FitContext
from raygrid.nn.diffusion import DenoiserPlan, fitted
from raygrid.storage.store import Bundle
from raygrid.trials.artifacts.base import Artifact, BuildContext
from raygrid.trials.artifacts.dataset import LEAST_MAKING_SECONDS, DatasetArtifact, World


@dataclass(frozen=True)
class DenoiserArtifact(Artifact):
    """The weights of a noise predictor of a dataset's clean images, of one part of it.

    One for all seeds, as everybody who loads a published one has.
    """

    data: DatasetArtifact
    content: str
    plan: DenoiserPlan
    part: Literal["train", "val", "test"] = "train"
    kind: ClassVar[str] = "denoiser"

    @property
    def fitted_images(self) -> int:
        """How many images it is fitted to."""
        train = self.data.train_size
        rest = {"val": self.data.dataset.train_size - train, "test": self.data.dataset.test_size}
        return rest.get(self.part, train)

    @property
    def cost(self) -> float:
        """The cost in epochs of a ResNet-18 on the training images, for estimates."""
        return self.plan.cost(self.fitted_images) * self.fitted_images / self.data.train_size

    @property
    def key(self) -> str:
        augmentation = self.data.dataset.augmentation
        parts = [self.kind, self.content, self.plan.resolved(), augmentation]
        # Parts are younger than the first keys, of which all were of training images.
        return key_of(parts if self.part == "train" else [*parts, self.part])

    @property
    def label(self) -> str:
        named = {"val": "held-out images of ", "test": "test images of "}.get(self.part, "")
        return f"{self.plan.size} on {named}{self.data.label}"

    @property
    def nbytes(self) -> int:
        return self.plan.nbytes

    @property
    def held_nbytes(self) -> int:
        return self.fitted_images * self.data.pixel_nbytes

    def seconds(self, speed: Speed) -> float:
        return LEAST_MAKING_SECONDS + self.data.epoch_seconds(self.cost, speed)

    def needs(self) -> tuple[Artifact, ...]:
        return (self.data,)

    def make(self, inputs: Sequence[Bundle], context: BuildContext) -> Bundle:
        dataset = self.data.dataset
        stream = Stream("prior", (dataset.id,))
        fit_context = FitContext(stream, context.device, augmentation=dataset.augmentation)
        world = World.of(inputs[0])
        images = {"train": world.train, "val": world.val, "test": world.test}[self.part]
        if images is None:
            raise DataError(f"{self.data.label} has no held-out images to fit a predictor to")
        weights = fitted(self.plan, images, fit_context, context.progress)
        return Bundle({name: weight.cpu() for name, weight in weights.items()})
