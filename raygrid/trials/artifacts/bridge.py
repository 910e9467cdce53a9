"""Bridges from the poisons of an attack back to the clean images, fitted to a few pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from raygrid.core.errors import DataError
from raygrid.core.hashing import key_of
from raygrid.core.lazy import torch
from raygrid.core.seeds import Stream
from raygrid.core.speed import Speed
from raygrid.nn.context import FitContext
from raygrid.nn.diffusion import BridgePlan, fitted_bridge
from raygrid.storage.store import Bundle
from raygrid.trials.artifacts.base import Artifact, BuildContext
from raygrid.trials.artifacts.dataset import LEAST_MAKING_SECONDS, World
from raygrid.trials.artifacts.poison import PoisonArtifact, mix, poison_of

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class BridgeArtifact(Artifact):
    """The weights of a bridge that is fitted to some images of a poison and their clean originals.

    The tensor `rows` of its bundle says which images of the training set these are. They are drawn
    among the poisoned ones; where nothing is poisoned, among all.
    """

    poison: PoisonArtifact
    ratio: float
    plan: BridgePlan
    seed: int
    kind: ClassVar[str] = "bridge"

    @property
    def cost(self) -> float:
        """The cost in epochs of a ResNet-18 on the training set, for estimates."""
        return self.plan.cost(self.poison.data.train_size)

    @property
    def key(self) -> str:
        augmentation = self.poison.data.dataset.augmentation
        parts = [self.poison.key, self.ratio, self.plan.resolved(), self.seed, augmentation]
        return key_of([self.kind, *parts])

    @property
    def label(self) -> str:
        return f"{self.plan.pairs} pairs of {self.poison.label}"

    @property
    def nbytes(self) -> int:
        return self.plan.nbytes

    def seconds(self, speed: Speed) -> float:
        return LEAST_MAKING_SECONDS + self.poison.data.epoch_seconds(self.cost, speed)

    def needs(self) -> tuple[Artifact, ...]:
        return (self.poison.data, self.poison)

    def make(self, inputs: Sequence[Bundle], context: BuildContext) -> Bundle:
        world = World.of(inputs[0], self.poison.setup)
        poisoned, mask = mix(world, poison_of(inputs[1]), self.poison, self.ratio)
        data = self.poison.data.dataset
        stream = Stream("bridge", (data.id, self.seed))
        rows = drawn(mask, self.plan.pairs, stream)
        fit_context = FitContext(stream, context.device, augmentation=data.augmentation)
        pairs = world.train.rows(rows), poisoned.rows(rows)
        weights = fitted_bridge(self.plan, *pairs, fit_context, context.progress)
        return Bundle({**{n: w.cpu() for n, w in weights.items()}, "rows": rows})


def drawn(mask: Tensor, pairs: int, stream: Stream) -> Tensor:
    """Rows of pairs, ascending int64; mask: bool (N,), which images are poisoned.

    Raises DataError if there are not that many.
    """
    among = (mask if bool(mask.any()) else torch.ones_like(mask)).nonzero().flatten()
    if len(among) < pairs:
        raise DataError(f"{pairs} pairs were asked for, {len(among)} images are poisoned")
    order = torch.randperm(len(among), generator=stream.generator("pairs"))
    return among[order[:pairs]].sort().values
