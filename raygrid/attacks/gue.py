"""GUE: a noise network and a classifier that play a game, each by first-order steps."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from raygrid.attacks.base import ATTACKS, AttackContext
from raygrid.attacks.common.generators import GeneratorAttack, batch_accuracy, kept_apart
from raygrid.attacks.common.students import fresh, under
from raygrid.core.errors import DivergedError
from raygrid.core.images import Images
from raygrid.core.lazy import nn, torch
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card, require
from raygrid.core.seeds import forked
from raygrid.nn.recipes import Recipe
from raygrid.nn.steps import Batch, Step, classify_step
from raygrid.nn.trainer import Trainer

if TYPE_CHECKING:
    from torch import Tensor


@ATTACKS.register("gue")
@dataclass(frozen=True, kw_only=True)
class Gue(GeneratorAttack):
    """Trains a noise network g and a classifier f at once, in a bilevel problem of first order.

    For each batch a copy of f takes `look_ahead` Adam steps on x + budget * g(x). q is the loss of
    f there less that of the copy, F the mean over the clean batch of the largest cross-entropy
    among the wrong classes. With w = max(0, (eta |dq|^2 - <dF, dq>) / |dq|^2) the noise network
    goes against w dq, the classifier against dF + w dq. Every `judge_every` epochs a classifier is
    trained from scratch on the noise of g; the g that leaves it worst makes the noise of every
    image. selection: the images that say so, `held_out` ones of the training set, those of the
    `test` set as in the released code, or none of either: the `last` g is taken.
    """

    card = Card(
        paper="Liu, Wang and Gao 2024, Game-Theoretic Unlearnable Example Generator",
        code="hong-xian/gue@d23ca8e (gue.py, models/unet.py, evaluation.py)",
        needs="labels",
        cost="2,200 forward passes per image at 50 epochs",
        notes="THE RELEASED CODE KEEPS THE NOISE NETWORK OF THE LOWEST ACCURACY ON THE TEST SET, "
        "on which it is then measured: `selection=test` does that, and its results are marked. "
        "The default asks a tenth of the training images, from which the networks do not learn. A "
        "judge is asked with the statistics of its batches, as in the code. After each judging the "
        "code shows one batch to the noise network in eval mode, here none; its victims see pixels "
        "cut off to whole levels, here they are rounded. The paper's tables were not read",
    )
    quick: ClassVar[Mapping[str, Scalar]] = {
        "surrogate": "small_cnn",
        "batch_size": 32,
        "epochs": 40,
        "look_ahead": 5,
        "look_ahead_lr": 0.003,
        "generator_lr": 1.0,
        "classifier_lr": 0.05,
        "judge_every": 20,
        "judge_epochs": 8,
        "width": 8,
        "levels": 2,
    }
    tiny: ClassVar[Mapping[str, Scalar]] = {
        "surrogate": "small_cnn",
        "batch_size": 32,
        "epochs": 2,
        "look_ahead": 2,
        "judge_every": 1,
        "judge_epochs": 1,
        "width": 4,
        "levels": 2,
    }
    effort: ClassVar[frozenset[str]] = GeneratorAttack.effort | {
        "classifier_lr",
        "epochs",
        "generator_lr",
        "judge_epochs",
        "judge_every",
        "look_ahead",
        "look_ahead_lr",
    }

    batch_size: int = 256
    epochs: int = 50
    look_ahead: int = 10  # Adam steps of the classifier's copy
    look_ahead_lr: float = 1e-4
    generator_lr: float = 0.1
    classifier_lr: float = 0.01
    eta: float = 1.5  # how fast q has to fall, as a share of |dq|^2
    judge_every: int = 5  # epochs
    judge_epochs: int = 5  # of a judge's training
    selection: Literal["held_out", "test", "last"] = "held_out"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("epochs", "look_ahead", "judge_every", "judge_epochs"):
            value = getattr(self, name)
            require(value >= 1, f"{name} is {value}, allowed are whole numbers from 1")
        for name in ("look_ahead_lr", "generator_lr", "classifier_lr", "eta"):
            require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}, allowed above 0")

    @property
    def sees_test(self) -> bool:
        return self.selection == "test"

    def apart_of(self, images: int) -> int:
        return super().apart_of(images) if self.selection == "held_out" else 0

    def passes(self, n: int) -> float:
        """A U-Net of width 64 takes 1.2 times a ResNet-18."""
        net = 1.2 * (self.width / 64) ** 2
        judges = 0 if self.selection == "last" else math.ceil(self.epochs / self.judge_every)
        judging = judges * (net + 3.0 * self.judge_epochs)
        shown = 1 - self.held_out if self.selection == "held_out" else 1.0
        return shown * (self.epochs * (3 * net + 3.0 * self.look_ahead + 9) + judging) + net

    def judged(self, done: int) -> bool:
        """Whether the noise network is judged after so many epochs."""
        return self.selection != "last" and (done % self.judge_every == 0 or done == self.epochs)

    def propose(self, images: Images, context: AttackContext) -> Tensor:
        images = self.owned(images, context)
        game = Game(self, images, context)
        for epoch in range(game.restore(), self.epochs):
            with forked(context.stream.seed("dropout", epoch), context.device):
                losses = game.epoch(epoch)
                if self.judged(epoch + 1):
                    game.judge(epoch + 1)
            context.progress.save(game.tensors(), game.facts(epoch + 1))
            context.progress.report(epoch + 1, self.epochs, **losses)
        if self.selection != "last":
            context.facts.update(epoch=game.kept, judge_acc=game.lowest)
            game.generator.load_state_dict(game.best)
        if self.sees_test:
            context.marks.append("gue: the noise network was chosen by accuracy on the test set")
        return self.noise(game.generator, images, context.device)


class Game:
    """The noise network, the classifier, and the noise network that a judge was worst with.

    train, apart: the images that both learn from, and those that judges are asked about.
    lowest, kept: accuracy of that judge, and the number of epochs that network had learned.
    """

    def __init__(self, attack: Gue, images: Images, context: AttackContext) -> None:
        self.attack, self.context, self.device = attack, context, context.device
        train, apart = images, context.test
        if attack.selection == "held_out":
            train, apart = kept_apart(images, attack.apart_of(len(images)), context.stream)
        given = apart is not None or attack.selection == "last"
        require(given, f"{attack.id} was given no test set")
        self.train = train.to(self.device)
        self.apart = None if apart is None else apart.to(self.device)
        self.generator = attack.generator(context).train()
        # The code has the same batch pass through the noise network before every step of the copy
        # and twice more. Once is enough: its running statistics move as far in one update.
        for module in self.generator.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1 - 0.9 ** (attack.look_ahead + 2)
        self.classifier: nn.Module = fresh(attack.surrogate, self.train, context, fan_out=True)
        self.best: dict[str, Tensor] = {}
        self.lowest, self.kept = 1.0, 0

    def epoch(self, number: int) -> dict[str, float]:
        """A pass over the shuffled images; returns both mean losses. Raises DivergedError."""
        self.generator.train()
        self.classifier.train()
        totals = torch.zeros(3, device=self.device)
        for index in self.batches("order", number):
            moved = self.move(self.train.floats(index), self.train.labels[index])
            totals += torch.stack([*moved, moved[0].new_ones(())])
        own, clean, count = totals.tolist()
        if not math.isfinite(own + clean):
            raise DivergedError(number + 1, own + clean, "noise")
        return {"poison_loss": own / count, "clean_loss": clean / count}

    def batches(self, *key: object) -> Iterator[Tensor]:
        """Rows of shuffled batches; one of a single image has no batch statistics."""
        rng = self.context.stream.generator(*key)
        order = torch.randperm(len(self.train), generator=rng).to(self.device)
        yield from (rows for rows in order.split(self.attack.batch_size) if len(rows) > 1)

    def move(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """A step of both networks; returns the classifier's losses on noisy and clean images."""
        attack, cross_entropy = self.attack, nn.functional.cross_entropy
        mine, theirs = list(self.generator.parameters()), list(self.classifier.parameters())
        shown = (x + attack.radius * self.generator(x)).clamp(0, 1)
        copied = follower(
            self.classifier, shown.detach(), y, attack.look_ahead, attack.look_ahead_lr
        )
        clean = least_likely(self.classifier(x), y)
        of_clean = torch.autograd.grad(clean, theirs)
        own = cross_entropy(self.classifier(shown), y)
        q = own - cross_entropy(copied(shown), y)
        of_q = torch.autograd.grad(q, [*mine, *theirs])
        weight = multiplier(of_clean, of_q, attack.eta)
        for_mine = [weight * g for g in of_q[: len(mine)]]
        pairs = zip(of_clean, of_q[len(mine) :], strict=True)
        for_theirs = [f + weight * g for f, g in pairs]
        descend(mine, for_mine, attack.generator_lr)
        descend(theirs, for_theirs, attack.classifier_lr)
        return own.detach(), clean.detach()

    def judge(self, done: int) -> None:
        """Keep the noise network if a classifier trained on its noise is worse than any before."""
        assert self.apart is not None
        reached = batch_accuracy(self.judge_of(done), self.apart, self.attack.batch_size)
        if reached < self.lowest or not self.kept:
            self.lowest, self.kept = reached, done
            self.best = copy.deepcopy(self.generator.state_dict())

    def judge_of(self, done: int) -> nn.Module:
        """A classifier from scratch on noisy images. Raises DivergedError."""
        noise = self.attack.noise(self.generator, self.train, self.device)
        judge = fresh(self.attack.surrogate, self.train, self.context, "judge", done, fan_out=True)
        recipe = Recipe(
            epochs=self.attack.judge_epochs,
            batch_size=self.attack.batch_size,
            lr=0.01,
            schedule="constant",
            precision="fp32",
        )

        def step(batch: Batch) -> Step:
            batch.x = (batch.x + noise[batch.index]).clamp_(0, 1)
            return classify_step(judge, batch, "fp32")

        stream = self.context.stream.child("judge", done)
        trainer = Trainer(judge, step, self.train, recipe, stream)
        try:
            for epoch in range(recipe.epochs):
                trainer.epoch(epoch)
        except DivergedError as error:
            raise error.of("judging the noise") from None
        return judge

    def tensors(self) -> dict[str, Tensor]:
        parts = {"g": self.generator.state_dict(), "f": self.classifier.state_dict()}
        parts["best"] = self.best
        return {f"{part}.{k}": v for part, state in parts.items() for k, v in state.items()}

    def facts(self, done: int) -> dict[str, float]:
        return {"done": done, "lowest": self.lowest, "kept": self.kept}

    def restore(self) -> int:
        """Go on from a checkpoint; returns the number of finished epochs."""
        saved = self.context.progress.load()
        if saved is None:
            return 0
        tensors, facts = saved
        self.generator.load_state_dict(under("g", tensors))
        self.classifier.load_state_dict(under("f", tensors))
        self.best = under("best", tensors)
        self.lowest, self.kept = float(facts["lowest"]), int(facts["kept"])
        return int(facts["done"])


def follower(classifier: nn.Module, shown: Tensor, y: Tensor, steps: int, lr: float) -> nn.Module:
    """A copy of the classifier after Adam steps on one batch."""
    copied = copy.deepcopy(classifier)
    optimizer = torch.optim.Adam(copied.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(copied(shown), y).backward()
        optimizer.step()
    return copied.requires_grad_(False)


def least_likely(logits: Tensor, y: Tensor) -> Tensor:
    """The mean over images of the largest cross-entropy among the wrong classes, a scalar."""
    wrong = logits.scatter(1, y[:, None], math.inf).amin(1)
    return (logits.logsumexp(1) - wrong).mean()


def multiplier(of_clean: Sequence[Tensor], of_q: Sequence[Tensor], eta: float) -> Tensor:
    """The smallest w >= 0 for which a step against dF + w dq lowers q by eta |dq|^2, a scalar.

    of_clean: dF in the classifier's parameters, on which alone F depends; of_q: dq in those of the
    noise network, then in these.
    """
    length = torch.stack([g.square().sum() for g in of_q]).sum()
    shared = of_q[len(of_q) - len(of_clean) :]
    inner = torch.stack([(f * g).sum() for f, g in zip(of_clean, shared, strict=True)]).sum()
    return ((eta * length - inner) / (length + 1e-8)).clamp_min(0)


def descend(parameters: Sequence[Tensor], gradients: Sequence[Tensor], lr: float) -> None:
    """A plain step against gradients, in place."""
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.sub_(gradient, alpha=lr)
