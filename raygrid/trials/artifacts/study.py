"""What a defense finds out about the training set that reaches the learner."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from raygrid.core.errors import DataError
from raygrid.core.hashing import key_of
from raygrid.core.seeds import Stream
from raygrid.core.speed import Speed
from raygrid.defenses.base import Defense, FitContext
from raygrid.storage.store import Bundle
from raygrid.trials.artifacts.base import Artifact, BuildContext
from raygrid.trials.artifacts.dataset import hold_out
from raygrid.trials.artifacts.poison import PoisonArtifact
from raygrid.trials.artifacts.purified import PurifiedArtifact, purifying_seconds, reaching


@dataclass(frozen=True)
class StudyArtifact(Artifact):
    """The study of one link of a defense chain.

    purified: the set after all purifying links, None without one. holdout: the share of the set
    that is kept from the learner.
    """

    poison: PoisonArtifact
    ratio: float
    purified: PurifiedArtifact | None
    link: Defense
    holdout: float
    seed: int
    kind: ClassVar[str] = "study"

    @property
    def cost(self) -> float:
        """The cost in epochs of a ResNet-18 on the same images, for estimates."""
        return self.link.study_cost

    @property
    def gpu(self) -> bool:
        return self.cost > 0

    @property
    def key(self) -> str:
        before = self.purified.key if self.purified else [self.poison.key, self.ratio]
        augmentation = self.poison.data.dataset.augmentation  # the link may train a network with it
        parts = [before, self.link.resolved(), self.holdout, self.seed, augmentation]
        return key_of([self.kind, *parts])

    @property
    def label(self) -> str:
        return f"{self.link.id} on {(self.purified or self.poison).label}"

    @property
    def nbytes(self) -> int:
        size = self.poison.pool_size
        return self.link.study_nbytes(size - round(self.holdout * size))

    @property
    def held_nbytes(self) -> int:
        size = self.poison.pool_size
        shown = size - round(self.holdout * size)
        return int(self.link.holds * shown * self.poison.data.pixel_nbytes)

    def seconds(self, speed: Speed) -> float:
        return purifying_seconds(self.poison, self.cost, speed.of_float32)

    def needs(self) -> tuple[Artifact, ...]:
        return (self.purified,) if self.purified else (self.poison.data, self.poison)

    def make(self, inputs: Sequence[Bundle], context: BuildContext) -> Bundle:
        images = reaching(self.purified, self.poison, self.ratio, inputs)
        train, _ = hold_out(images.with_pixels(images.pixels), self.holdout)
        # The stream must not know the attack: the same images are studied the same way.
        stream = Stream("study", (self.poison.data.dataset.id, self.link.id, self.seed))
        augmentation = self.poison.data.dataset.augmentation
        fit_context = FitContext(stream, context.device, augmentation=augmentation)
        started = time.perf_counter()
        try:
            study = self.link.study(train, fit_context)
        except DataError as error:
            raise DataError(f"{self.link.id}: {error}") from error
        tensors = {name: tensor.cpu() for name, tensor in study.items()}
        return Bundle(tensors, {"seconds": time.perf_counter() - started})
