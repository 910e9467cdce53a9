"""Transfer learning with a frozen extractor: a new linear layer is all that is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from raygrid.core.images import Images
from raygrid.core.lazy import nn, torch
from raygrid.core.registry import Card, Combination, require
from raygrid.core.seeds import forked
from raygrid.defenses.base import Defense
from raygrid.learners.base import (
    LEARNERS,
    NEEDS_PRETRAINING,
    DrawView,
    Inputs,
    Learner,
    Session,
    Task,
)
from raygrid.learners.common.features import features_of
from raygrid.learners.common.frozen import augmented_features
from raygrid.learners.supervised import augmented, hits
from raygrid.nn.networks import freeze
from raygrid.nn.recipes import Recipe
from raygrid.nn.steps import Batch, Step
from raygrid.nn.trainer import Metrics, Trainer

if TYPE_CHECKING:
    from torch import Tensor


@LEARNERS.register("linear_probe")
@dataclass(frozen=True, kw_only=True)
class LinearProbe(Learner):
    """A linear layer on features of the protocol's pre-trained extractor, in float32.

    The extractor stays in eval mode, its weights and running statistics bit for bit. With `cache`
    the features of that many augmented passes are kept and used in turn, epoch by epoch.
    """

    card = Card(
        paper="Schwarzschild et al. 2021 (Just How Toxic is Data Poisoning?), section 4",
        code="aks2203/poisoning-benchmark@97a67ae",
        notes="cache=0 is the paper's: a new augmented pass in every epoch. Without augmentation "
        "one pass is kept, which changes nothing",
    )
    version: ClassVar[int] = 2
    passes: ClassVar[float] = 0.4
    pretrained: ClassVar[bool] = True

    cache: int = 0  # augmented passes whose features are kept; 0: none

    def __post_init__(self) -> None:
        require(0 <= self.cache <= 64, f"cache is {self.cache}, allowed are 0 to 64 passes")

    def passes_kept(self, plain: bool) -> int:
        return 1 if plain else self.cache

    def check(self, recipe: Recipe) -> None:
        kept = self.cache and recipe.flips == "alternating"
        require(not kept, "flips cannot alternate in kept features, cache=0 keeps none")

    def start(self, task: Task) -> Session:
        return ProbeSession(self, task)

    def shown(self, session: Session, images: Images, view: DrawView) -> tuple[Inputs, DrawView]:
        assert isinstance(session, ProbeSession)
        return session.features_of(images, view), lambda x: x

    def skip(self, combination: Combination) -> str | None:
        if not combination.pretrains:
            return NEEDS_PRETRAINING.format(self.id)
        links = [d for d in combination.defense if isinstance(d, Defense)]
        acting = [d.id for d in links if d.acts("augment") or d.acts("loss")]
        if self.cache and acting:
            return f"kept features never meet {acting[0]}, which acts on images; use cache=0"
        return None


@dataclass(frozen=True)
class Features:
    """Features with labels: float32 (N, width), int64 (N,)."""

    values: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.values)

    def floats(self, index: slice) -> Tensor:
        return self.values[index]


class ProbeSession:
    """One head and one trainer over kept features or over images."""

    def __init__(self, learner: LinearProbe, task: Task) -> None:
        from raygrid.learners.common.frozen_classifier import FrozenClassifier

        require(task.extractor is not None, f"{learner.id} was given no pre-trained extractor")
        assert task.extractor is not None
        self.learner = learner
        self.task = task
        self.network = freeze(task.extractor)
        with forked(task.streams["init"].seed("head")):
            head = nn.Linear(self.network.width, task.train.classes).to(task.device)
        self.model = FrozenClassifier(self.network, head)
        passes = learner.passes_kept(task.defense.plain)
        self.features = [self._kept(number) for number in range(passes)]
        train = task.train
        if self.features:
            train = train.blank()  # the step reads features
        self.trainer = Trainer(head, self.step, train, task.recipe, task.streams["data"])

    def _kept(self, number: int) -> Tensor:
        """Features of pass `number` over the training set; only what is not known is computed."""
        task, kept = self.task, self.task.kept
        rows, new = torch.arange(len(task.train)), torch.ones(len(task.train), dtype=torch.bool)
        if kept is not None:
            rows, new = kept.rows, ~kept.known
        made = augmented_features(
            self.network, task.train.rows(new.to(task.device)), rows[new], task.augmentation, number
        )
        if kept is None:
            return made
        values = kept.train[number].clone()
        values[new.to(task.device)] = made.to(task.device)
        return values

    def step(self, batch: Batch) -> Step:
        classes = self.task.train.classes
        if self.features:
            y = batch.y
            logits = self.model.head(self.features[batch.epoch % len(self.features)][batch.index])
            loss = nn.functional.cross_entropy(logits, batch.target(y, classes))
            return Step(loss, hits(logits, y), len(y))
        defense = self.task.defense.during(batch.epoch)
        x, y = augmented(self.task, defense, batch)
        loss, logits = defense.loss(self.model, x, batch.target(y, classes), batch.rng)
        return Step(loss, hits(logits, y), len(y))

    def features_of(self, images: Images, view: DrawView) -> Features:
        """Features of images as the classifier meets them at test time."""
        tests = {} if self.task.kept is None else self.task.kept.tests
        if images.fingerprint in tests and _changes_nothing(view, images):
            return Features(tests[images.fingerprint], images.labels)
        return Features(features_of(self.network, images, "fp32", view), images.labels)

    def epoch(self, epoch: int) -> Metrics:
        self.model.eval()
        return self.trainer.epoch(epoch)

    def classifier(self) -> nn.Module:
        return self.model

    def finish(self) -> nn.Module:
        return self.model

    def state_dict(self) -> dict[str, Any]:
        return self.trainer.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.trainer.load_state_dict(state)


def _changes_nothing(view: DrawView, images: Images) -> bool:
    """Whether a view hands on the very tensor that it is given."""
    x = images.floats(slice(0, 1))
    return view(x) is x
