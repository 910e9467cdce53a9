"""What a learner is: it turns a training set into a classifier, one epoch at a time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import nn

from raygrid.architectures.base import Architecture, Network, Normalize
from raygrid.augment import Augmentation
from raygrid.data import Images
from raygrid.defenses.base import Chain
from raygrid.registry import Method, Registry
from raygrid.seeds import Stream
from raygrid.training import PROBING, Metrics, Probing, Recipe, place


@dataclass(frozen=True)
class Task:
    """What a learner is given: a training set of unknown origin and how to train on it.

    train: images on the device. labeled: what a linear probe or kNN may be fitted on (the training
    set itself, or its clean version where the protocol says so).
    augmentation: the standard one, None where there is none.
    normalization: (mean, std) per channel, or None. probing: how a linear probe is fitted.
    """

    train: Images
    labeled: Images
    architecture: Architecture
    recipe: Recipe
    defense: Chain
    streams: Mapping[str, Stream]
    augmentation: Augmentation | None
    normalization: tuple[tuple[float, ...], tuple[float, ...]] | None
    probing: Probing = PROBING

    @property
    def device(self) -> torch.device:
        return self.train.pixels.device

    def network(self) -> Network:
        """The fresh victim on the device; its weights depend on the `init` stream alone."""
        seed = self.streams["init"].seed()
        network = self.architecture.build(self.train.classes, self.train.shape[-1], seed)
        if self.normalization is not None:
            network.normalize = Normalize(*self.normalization)
        place(network, self.device, self.architecture.convolutional)
        return network


class Session(Protocol):
    """A training under way. Its state between epochs is complete in `state_dict`."""

    def epoch(self, epoch: int) -> Metrics:
        """Train epoch number `epoch`, counted from 0; raises DivergedError."""

    def classifier(self) -> nn.Module:
        """What is tested after an epoch: (n, C, H, W) in [0, 1] -> scores (n, classes)."""

    def finish(self) -> nn.Module:
        """What is tested at the end; may fit a probe."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Learner(Method):
    """A way to learn from a training set.

    labels: whether training uses labels. views: whether it learns from pairs of augmented views
    and scores an encoder, so that hooks on labels or logits have no meaning. passes: forward and
    backward passes per image and epoch in units of one supervised pass, for estimates.
    """

    labels: ClassVar[bool] = True
    views: ClassVar[bool] = False
    passes: ClassVar[float] = 1.0

    @abstractmethod
    def start(self, task: Task) -> Session:
        """Set up the training; nothing is trained yet."""


LEARNERS: Registry[Learner] = Registry("learner", Learner)  # type: ignore[type-abstract]
