"""Supervised learning: cross-entropy on labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from raygrid.core.lazy import nn, torch
from raygrid.core.registry import Card, require
from raygrid.core.seeds import forked
from raygrid.defenses.chain import Chain
from raygrid.learners.base import LEARNERS, Learner, Session, Task, drawn_once
from raygrid.nn.recipes import Recipe, precision_of
from raygrid.nn.steps import Batch, Step, autocast
from raygrid.nn.trainer import Metrics, Trainer

if TYPE_CHECKING:
    from torch import Tensor

    from raygrid.architectures.networks.network import Network


@LEARNERS.register("supervised")
@dataclass(frozen=True, kw_only=True)
class Supervised(Learner):
    """Trains the whole network on labels; the defense's hooks act on every batch."""

    card = Card(
        paper="all five papers",
        notes="recipes are the protocol's. TP's code augments each image once for all epochs: "
        "`frozen_views`",
    )

    frozen_views: bool = False  # one augmentation of each image for the whole training: a diagnosis

    def check(self, recipe: Recipe) -> None:
        frozen = self.frozen_views and recipe.flips == "alternating"
        require(not frozen, "frozen views are mirrored once and for all, flips cannot alternate")

    def start(self, task: Task) -> Session:
        return SupervisedSession(with_frozen_views(task) if self.frozen_views else task)


def with_frozen_views(task: Task) -> Task:
    """The same with images that are augmented for good."""
    if task.augmentation is None:
        return task
    rng = task.streams["views"].generator("frozen")
    pixels = drawn_once(task.augmentation, task.train, rng)
    return replace(task, train=task.train.with_pixels(pixels), augmentation=None)


class SupervisedSession:
    """One network, a fresh one unless it is given, and one trainer."""

    def __init__(self, task: Task, network: Network | None = None) -> None:
        self.task = task
        self.network = network or task.network()
        with forked(task.streams["init"].seed("heads")):
            task.defense.prepare(self.network, task.study)
        self.network.to(task.device)
        self.precision = precision_of(task.recipe, task.architecture.convolutional)
        stream = task.streams["data"]
        self.trainer = Trainer(self.network, self.step, task.train, task.recipe, stream, pure=True)

    def step(self, batch: Batch) -> Step:
        defense = self.task.defense.during(batch.epoch)
        x, y = augmented(self.task, defense, batch)
        target = batch.target(y, self.task.train.classes)
        with autocast(self.precision, x.device):
            loss, logits = defense.loss(self.network, x, target, batch.rng)
        return Step(loss, hits(logits, y), len(y))

    def epoch(self, epoch: int) -> Metrics:
        return self.trainer.epoch(epoch)

    def classifier(self) -> nn.Module:
        return self.network

    def finish(self) -> nn.Module:
        return self.network

    def state_dict(self) -> dict[str, Any]:
        return self.trainer.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.trainer.load_state_dict(state)


def augmented(task: Task, defense: Chain, batch: Batch) -> tuple[Tensor, Tensor]:
    """A batch after the standard augmentation and the defense's; labels as weights if it mixes."""
    x, y = batch.x, batch.y
    if task.augmentation is not None:
        x = task.augmentation(x, batch.rng, batch.mirrored)
    if task.defense.mixes:
        y = nn.functional.one_hot(y, task.train.classes).float()
    return defense.augment(x, y, batch.rng)


def hits(logits: Tensor, y: Tensor) -> Tensor:
    """Correct predictions; with class weights (n, classes) the weight of the predicted class."""
    predicted = logits.detach().argmax(1)
    if y.dim() == 1:
        return (predicted == y).sum()
    return torch.gather(y, 1, predicted[:, None]).sum()
