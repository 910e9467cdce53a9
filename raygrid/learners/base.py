"""What a learner is: it turns a training set into a classifier, one epoch at a time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias

from raygrid.architectures.base import Architecture
from raygrid.core.images import Images, to_uint8
from raygrid.core.lazy import nn, torch
from raygrid.core.registry import Method, Registry
from raygrid.core.seeds import Stream
from raygrid.defenses.base import Study
from raygrid.defenses.chain import Chain
from raygrid.nn.augment import Augmentation
from raygrid.nn.networks import untrained
from raygrid.nn.recipes import PROBING, Probing, Recipe
from raygrid.nn.trainer import Metrics

if TYPE_CHECKING:
    from torch import Tensor

    from raygrid.architectures.networks.network import Network

NEEDS_PRETRAINING = "{} needs a protocol that pre-trains, as pretrained or just_how_toxic"
DrawView: TypeAlias = "Callable[[Tensor], Tensor]"


class Inputs(Protocol):
    """Labeled inputs of a classifier: `Images`, or what a learner made of them once and for all."""

    @property
    def labels(self) -> Tensor: ...

    def __len__(self) -> int: ...

    def floats(self, index: slice) -> Tensor:
        """The inputs of these rows, float32."""


@dataclass(frozen=True)
class Kept:
    """Features that a frozen extractor made of clean images, shared by all trials of a cell.

    rows: int64 (N,) the place of each training image in the whole data set. known: bool (N,)
    whether its features are here. train: float32 (passes, N, width), one augmented pass after the
    other, zero where not known. tests: float32 (T, width) of images of the test part as they are,
    by their fingerprint.
    """

    rows: Tensor
    known: Tensor
    train: Tensor
    tests: Mapping[str, Tensor]


@dataclass(frozen=True)
class Task:
    """What a learner is given: a training set of unknown origin and how to train on it.

    train: images for the device; those that do not fit there are sent in batches. labeled: what a
    linear probe or kNN may be fitted on (the training set itself, or its clean version where the
    protocol says so).
    augmentation: the standard one, None where there is none.
    normalization: (mean, std) per channel, or None. probing: how a linear probe is fitted.
    extractor: a pre-trained network, frozen, for learners that start from one. kept: features that
    it made already. study: what the defense found out about the training set.
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
    extractor: Network | None = None
    kept: Kept | None = None
    study: Study = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        return self.train.device

    def network(self) -> Network:
        """The fresh victim on the device; its weights depend on the `init` stream alone."""
        seed = self.streams["init"].seed()
        return untrained(self.architecture, self.train, seed, self.device, self.normalization)


def drawn_once(augment: Augmentation, images: Images, rng: torch.Generator) -> Tensor:
    """One augmentation of every image, for good: uint8 pixels (n, C, H, W)."""
    home = images.pixels.device
    rows = torch.arange(len(images), device=home).split(1000)
    return torch.cat([to_uint8(augment(images.floats(r), rng)).to(home) for r in rows])


class Session(Protocol):
    """A training under way. Its state between epochs is complete in `state_dict`."""

    def epoch(self, epoch: int) -> Metrics:
        """Train epoch number `epoch`, counted from 0; raises DivergedError.

        Returns numbers by their names: `train_loss`, which every learner has to give, and what
        else there is (`train_acc`, `lr`).
        """

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
    pretrained: whether it starts from an extractor that the protocol pre-trains. recipe: how it is
    trained in protocols that list none for it; None: these cannot train it.
    """

    labels: ClassVar[bool] = True
    views: ClassVar[bool] = False
    passes: ClassVar[float] = 1.0
    pretrained: ClassVar[bool] = False
    recipe: ClassVar[Recipe | None] = None

    @abstractmethod
    def start(self, task: Task) -> Session:
        """Set up the training; nothing is trained yet."""

    def check(self, recipe: Recipe) -> None:
        """Raise SpecError for a recipe that asks for what the learner cannot do."""

    def passes_kept(self, plain: bool) -> int:
        """Augmented passes whose features trials share; 0: none. plain: nothing is augmented."""
        return 0

    def probe_accuracies(self, session: Session, images: Images, view: DrawView) -> list[float]:
        """Accuracy on images after each epoch of the probe that `finish` fitted; none without."""
        return []

    def shown(self, session: Session, images: Images, view: DrawView) -> tuple[Inputs, DrawView]:
        """What the session's classifier is shown for images that do not change, and its view."""
        return images, view


LEARNERS: Registry[Learner] = Registry("learner", Learner)  # type: ignore[type-abstract]
