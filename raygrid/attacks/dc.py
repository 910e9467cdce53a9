"""DC: DeepConfuse, a network that makes the noise."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from raygrid.architectures import ARCHITECTURES
from raygrid.attacks.base import ATTACKS, AttackContext
from raygrid.attacks.common.generators import GeneratorAttack, batch_accuracy, kept_apart
from raygrid.attacks.common.students import flat_state, load_flat_state, under
from raygrid.core.errors import DivergedError
from raygrid.core.images import Images
from raygrid.core.lazy import nn, torch
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card, require
from raygrid.core.seeds import forked
from raygrid.nn.networks import untrained

if TYPE_CHECKING:
    from torch import Tensor


@ATTACKS.register("dc")
@dataclass(frozen=True, kw_only=True)
class Dc(GeneratorAttack):
    """Trains an image-to-noise network on whose output classifiers learn nothing about clean data.

    A trial trains a classifier from scratch on x + budget * g(x) with a fixed g. Before each of
    its steps a copy g2 takes an Adam step that raises the clean loss of the classifier after one
    look-ahead SGD step on x + budget * g2(x). After the trial g becomes g2, and the accuracy of
    another classifier trained on its noise, on held-out clean images, says how good it is; the
    best g is kept and makes the noise of every image. It is judged with the statistics of the
    held-out batches, as in the code: with those of its training nearly any noise looks perfect.
    """

    card = Card(
        paper="Feng et al. 2019, Learning to Confuse",
        code="kingfengji/DeepConfuse@1f49274 (CIFAR/train.py)",
        published={
            "cifar10/dc/none/resnet18/supervised/apbench/0": 0.1417,
            "cifar10/dc/standard/resnet18/supervised/apbench/0": 0.1519,
            "cifar10/dc/grayscale/resnet18/supervised/apbench/0": 0.8555,
        },
        needs="labels",
        cost="100,000 forward passes per image at 500 trials",
        notes="APBench applied the authors' generator, trained at 0.032, at 8/255; here both are "
        "the budget. The paper's classifier has five plain layers, the code's is a VGG-11 "
        "with two features, the default from version 2 on; surrogate=vgg11 is the plain one. The "
        "code selects by test accuracy; this by held-out training images",
    )
    quick: ClassVar[Mapping[str, Scalar]] = {
        "surrogate": "small_cnn",
        "batch_size": 128,
        "trials": 3,
        "classifier_lr": 0.1,
        "inner_epochs": 3,
        "width": 16,
        "levels": 3,
        "generator_lr": 0.001,
    }
    tiny: ClassVar[Mapping[str, Scalar]] = {
        "surrogate": "small_cnn",
        "batch_size": 32,
        "trials": 2,
        "inner_epochs": 1,
        "width": 4,
        "levels": 2,
    }

    version: ClassVar[int] = 2
    effort: ClassVar[frozenset[str]] = GeneratorAttack.effort | {
        "classifier_lr",
        "generator_lr",
        "inner_epochs",
        "patience",
        "trials",
    }

    surrogate: str = "vgg11_narrow"
    batch_size: int = 256
    trials: int = 500
    patience: int = 50  # trials without a better noise network after which it ends
    inner_epochs: int = 20  # of the classifier of a trial
    classifier_lr: float = 0.01
    generator_lr: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("trials", "patience", "inner_epochs"):
            value = getattr(self, name)
            require(value >= 1, f"{name} is {value}, allowed are whole numbers from 1")
        for name in ("classifier_lr", "generator_lr"):
            require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}, allowed above 0")

    def passes(self, n: int) -> float:
        """A U-Net of width 64 takes 4.3 times a VGG-11; the look-ahead step about 11 passes."""
        net = 4.3 * (self.width / 64) ** 2
        return self.trials * (self.inner_epochs * (3 * net + 11 + 3 + 3) + 2 * net)

    def propose(self, images: Images, context: AttackContext) -> Tensor:
        images = self.owned(images, context)
        search = Search(self, images, context)
        trial = search.restore()
        while trial < self.trials and search.stale < self.patience:
            with forked(context.stream.seed("dropout", trial), context.device):
                search.trial(trial)
            trial += 1
            context.progress.save(search.tensors(), search.facts(trial))
            context.progress.report(trial, self.trials, held_out_acc=search.lowest)
        context.facts.update(trials=trial, held_out_acc=search.lowest)
        search.generator.load_state_dict(search.best)
        return search.noise(images)


class Search:
    """The noise network in use, the one that learns, the best one, and trials of classifiers."""

    def __init__(self, attack: Dc, images: Images, context: AttackContext) -> None:
        self.attack, self.device, self.stream = attack, context.device, context.stream
        self.progress = context.progress
        train, held = kept_apart(images, attack.apart_of(len(images)), context.stream)
        self.train, self.held = train.to(self.device), held.to(self.device)
        self.generator = attack.generator(context)
        self.learner = copy.deepcopy(self.generator)
        self.generator.eval()
        self.optimizer = torch.optim.Adam(self.learner.parameters(), lr=attack.generator_lr)
        self.best = self.generator.state_dict()
        self.lowest, self.stale = 1.0, -1

    def trial(self, number: int) -> None:
        """One classifier against the fixed noise, with a look-ahead step of the other network."""
        classifier = self.fresh(number)
        fixed = self.noise(self.train)
        for index in self.batches(number):
            x, y = self.train.floats(index), self.train.labels[index]
            self.look_ahead(classifier, x, y)
            self.fit(classifier, x + fixed[index], y)
        self.generator.load_state_dict(self.learner.state_dict())
        self.judge(number)

    def look_ahead(self, classifier: nn.Module, x: Tensor, y: Tensor) -> None:
        """Raise the clean loss that follows from one step on the noise of the learning network."""
        self.learner.train()
        loss = -ahead(classifier, self.shown(x), x, y, self.attack.classifier_lr)
        parameters = list(self.learner.parameters())
        for parameter, gradient in zip(
            parameters, torch.autograd.grad(loss, parameters), strict=True
        ):
            parameter.grad = gradient
        self.optimizer.step()

    def shown(self, x: Tensor) -> Tensor:
        """Images with the noise of the learning network, in [0, 1]."""
        return (x + self.attack.radius * self.learner(x)).clamp(0, 1)

    def fit(self, classifier: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """One plain SGD step on images that may leave [0, 1] and are clipped; returns the loss."""
        loss = nn.functional.cross_entropy(classifier(x.clamp(0, 1)), y)
        parameters = list(classifier.parameters())
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.sub_(gradient, alpha=self.attack.classifier_lr)
        return loss.detach()

    def judge(self, number: int) -> None:
        """Keep the noise network if a classifier trained on its noise is worse than any before.

        Raises DivergedError: a classifier that does not train would be the worst of all.
        """
        classifier = self.fresh(number, "judge")
        noise = self.noise(self.train)
        total = torch.zeros((), device=self.device)
        for index in self.batches(number, "judge"):
            x, y = self.train.floats(index), self.train.labels[index]
            total += self.fit(classifier, x + noise[index], y)
        if not math.isfinite(float(total)):
            raise DivergedError(number + 1, float(total), "judging the noise")
        reached = batch_accuracy(classifier, self.held, JUDGED_AT_ONCE)
        self.stale += 1
        if reached < self.lowest or self.stale == 0:
            self.lowest, self.stale = reached, 0
            self.best = copy.deepcopy(self.generator.state_dict())

    def noise(self, images: Images) -> Tensor:
        """The noise of the network in use for all images."""
        return self.attack.noise(self.generator, images, self.device)

    def fresh(self, *key: object) -> nn.Module:
        """An untrained classifier in training mode."""
        kind = ARCHITECTURES.make(self.attack.surrogate)
        seed = self.stream.seed("classifier", *key)
        return untrained(kind, self.train, seed, self.device).train()

    def batches(self, *key: object) -> Iterator[Tensor]:
        """Rows of the batches of all epochs of one classifier, shuffled."""
        for epoch in range(self.attack.inner_epochs):
            rng = self.stream.generator("order", epoch, *key)
            order = torch.randperm(len(self.train), generator=rng).to(self.device)
            yield from (r for r in order.split(self.attack.batch_size) if len(r) > 1)

    def tensors(self) -> dict[str, Tensor]:
        best = {f"best.{k}": v for k, v in self.best.items()}
        return {**flat_state(self.learner, self.optimizer), **best}

    def facts(self, trial: int) -> dict[str, float]:
        return {"trial": trial, "lowest": self.lowest, "stale": self.stale}

    def restore(self) -> int:
        """Go on from a checkpoint; returns the number of finished trials."""
        saved = self.progress.load()
        if saved is None:
            return 0
        tensors, facts = saved
        load_flat_state(tensors, self.learner, self.optimizer)
        self.generator.load_state_dict(self.learner.state_dict())
        self.best = under("best", tensors)
        self.lowest, self.stale = float(facts["lowest"]), int(facts["stale"])
        return int(facts["trial"])


JUDGED_AT_ONCE = 1000
"""Images of a batch whose statistics a classifier is judged with, as in the code."""


def ahead(classifier: nn.Module, shown: Tensor, x: Tensor, y: Tensor, lr: float) -> Tensor:
    """Clean loss after one SGD step on the shown images; differentiable in these.

    The step's forward pass is counted in the classifier's batch statistics; the clean one is on
    statistics of its own.
    """
    loss = nn.functional.cross_entropy(classifier(shown), y)
    named = dict(classifier.named_parameters())
    gradients = torch.autograd.grad(loss, list(named.values()), create_graph=True)
    moved = {k: p - lr * g for (k, p), g in zip(named.items(), gradients, strict=True)}
    buffers = {k: b.clone() for k, b in classifier.named_buffers()}
    logits = torch.func.functional_call(classifier, {**moved, **buffers}, (x,))
    return nn.functional.cross_entropy(logits, y)
