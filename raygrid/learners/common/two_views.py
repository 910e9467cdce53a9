"""What learners made of two random views share: the views, the session, the evaluation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from raygrid.architectures.base import fan_out_init
from raygrid.core.images import Images
from raygrid.core.lazy import nn, torch
from raygrid.core.registry import require
from raygrid.core.seeds import forked
from raygrid.learners.base import DrawView, Learner, Session, Task, drawn_once
from raygrid.learners.common.features import CollapseAlarm, features_of
from raygrid.learners.common.probe import fit_probe
from raygrid.nn.augment import Views
from raygrid.nn.recipes import Recipe, precision_of
from raygrid.nn.steps import Batch, Step, autocast
from raygrid.nn.trainer import Metrics, Trainer

if TYPE_CHECKING:
    from torch import Tensor

    from raygrid.architectures.networks.network import Network
    from raygrid.learners.common.knn import KnnClassifier
    from raygrid.nn.contrastive.base import Framework


@dataclass(frozen=True, kw_only=True)
class TwoViews(Learner):
    """Learns an encoder from pairs of views; a kNN scores every epoch, a linear probe the last.

    The defense changes each view by itself, after the learner's own augmentation. The encoder is
    scored by kNN on `Task.labeled`; at the end a linear probe is fitted on the same images.
    Convolutions of the encoder are drawn by fan-out, whatever the architecture's own rule, as in
    the codes of CP, of TP's earlier version and of APBench; from version 2 on.
    """

    version: ClassVar[int] = 2
    labels: ClassVar[bool] = False
    views: ClassVar[bool] = True
    passes: ClassVar[float] = 2.0

    crop_min: float = 0.2  # smallest share of the area that a crop keeps
    color: float = 1.0  # strength of the color jitter, 1 for (0.4, 0.4, 0.4, 0.1)
    frozen_views: bool = False  # two fixed views of each image for the whole training: a diagnosis
    neighbors: int = 200  # of the kNN, images
    bank: int = 10_000  # most labeled images that the kNN looks at

    def __post_init__(self) -> None:
        require(0 < self.crop_min <= 1, f"crop_min is {self.crop_min}, allowed are 0 to 1")
        require(0 <= self.color <= 2, f"color is {self.color}, allowed are 0 to 2")
        require(self.neighbors >= 1, f"neighbors is {self.neighbors}, allowed from 1")
        require(self.bank >= 1, f"bank is {self.bank}, allowed from 1")

    def check(self, recipe: Recipe) -> None:
        share = recipe.smoothing
        require(share == 0, f"smoothing is {share}, but the loss of two views smooths no labels")
        require(recipe.flips == "random", "flips of two views are random and cannot alternate")

    @abstractmethod
    def framework(self, network: Network, precision: str) -> Framework:
        """The heads and the loss around a network; initialization draws from the global stream."""

    def pipeline(self, task: Task) -> Views:
        """The views of a task: never mirrored where the dataset's own augmentation is not."""
        return Views(
            scale=(self.crop_min, 1.0),
            flip=task.augmentation is not None and task.augmentation.flip,
            brightness=0.4 * self.color,
            contrast=0.4 * self.color,
            saturation=0.4 * self.color,
            hue=0.1 * self.color,
        )

    def probe_accuracies(self, session: Session, images: Images, view: DrawView) -> list[float]:
        assert isinstance(session, TwoViewSession)
        return session.probe_accuracies(images, view)

    def start(self, task: Task) -> Session:
        n = len(task.train)
        require(n >= 2, f"the training set has {n} image, {self.id} needs 2 and more")
        return TwoViewSession(self, task)


class TwoViewSession:
    """A framework and its trainer."""

    def __init__(self, learner: TwoViews, task: Task) -> None:
        self.learner = learner
        self.task = task
        self.precision = precision_of(task.recipe, task.architecture.convolutional)
        self.network = task.network()
        fan_out_init(self.network, task.streams["init"].seed("fan_out"))
        with forked(task.streams["init"].seed("heads")):
            self.framework = learner.framework(self.network, self.precision)
            task.defense.prepare(self.framework, task.study)
        self.framework.to(task.device)
        self.views = learner.pipeline(task)
        self.frozen = self._freeze() if learner.frozen_views else None
        stream = task.streams["data"]
        self.trainer = Trainer(self.framework, self.step, task.train, task.recipe, stream)
        self.alarm = CollapseAlarm()
        self._knn: KnnClassifier | None = None
        self._heads: list[dict[str, Tensor]] = []  # of the probe, after each of its epochs

    def step(self, batch: Batch) -> Step:
        defense, views = self.task.defense.during(batch.epoch), self.pair(batch)
        batch.flips = self.views.flip
        loss = defense.contrast(self.framework, batch, views)
        return Step(loss, torch.zeros((), device=loss.device), len(batch.y))

    def pair(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Two views of each image, float32 (n, C, H, W) in [0, 1], after the defense."""
        if self.frozen is None:
            views = [self.views(batch.x, batch.rng) for _ in range(2)]
        else:
            views = [frozen.floats(batch.index) for frozen in self.frozen]
        a, b = (self.task.defense.augment(v, batch.y, batch.rng)[0] for v in views)
        return a, b

    def _freeze(self) -> list[Images]:
        """Two fixed views of the whole training set."""
        draws = (self.task.streams["views"].generator("frozen", number) for number in range(2))
        train = self.task.train
        return [train.with_pixels(drawn_once(self.views, train, rng)) for rng in draws]

    def epoch(self, epoch: int) -> Metrics:
        """Adds the spread of the features and whether they have collapsed (1.0) to the loss."""
        metrics = self.trainer.epoch(epoch)
        del metrics["train_acc"]  # there is nothing to predict
        self._knn = self._fresh_knn()
        spread = self._knn.spread()
        collapsed = float(self.alarm.hear(spread))
        return {**metrics, "feature_spread": spread, "collapsed": collapsed}

    def _fresh_knn(self) -> KnnClassifier:
        from raygrid.learners.common.knn import KnnClassifier

        bank = self._bank()
        features = features_of(self.network, bank, self.precision)
        neighbors = self.learner.neighbors
        return KnnClassifier(self.network, features, bank.labels, bank.classes, neighbors)

    def _bank(self) -> Images:
        labeled, limit = self.task.labeled, self.learner.bank
        if len(labeled) <= limit:
            return labeled
        generator = self.task.streams["probe"].generator("bank")
        return labeled.rows(torch.randperm(len(labeled), generator=generator)[:limit])

    def classifier(self) -> nn.Module:
        """The kNN over the encoder as it is now."""
        self._knn = self._knn or self._fresh_knn()
        return self._knn

    def finish(self) -> nn.Module:
        """The encoder with a linear probe as its head."""
        crops = replace(self.views, jitter=0.0, gray=0.0)
        stream, probing = self.task.streams["probe"], self.task.probing
        labeled = self.task.labeled
        fitted = fit_probe(self.network, labeled, probing, crops, stream, self.precision)
        self._heads = fitted.heads
        return fitted.network

    def probe_accuracies(self, images: Images, view: DrawView) -> list[float]:
        """The linear probe's accuracies after each of its epochs; none before `finish`."""
        if not self._heads:
            return []
        features = features_of(self.network, images, self.precision, view)
        accuracies = []
        for head in self._heads:
            weight, bias = (head[name].to(features.device) for name in ("weight", "bias"))
            with torch.no_grad(), autocast(self.precision, features.device):
                logits = nn.functional.linear(features, weight, bias)
            hits = (logits.argmax(1) == images.labels.to(logits.device)).sum()
            accuracies.append(int(hits) / len(images))
        return accuracies

    def state_dict(self) -> dict[str, Any]:
        return {"trainer": self.trainer.state_dict(), "low": self.alarm.low}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.trainer.load_state_dict(state["trainer"])
        self.alarm = CollapseAlarm(state["low"])
        self._knn = None
