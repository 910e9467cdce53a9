"""Pre-training of contrastive learners beside TrustMLRG/TransPoison@2d08a9c and its base.

kaiwenzha/contrastive-poisoning@628838c: main.py (train), util.py (warmup_learning_rate,
adjust_learning_rate), losses.py, cl_algs.py. Same images, weights, order and views; in float64.
"""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy, normalize

from raygrid.architectures import ARCHITECTURES
from raygrid.learners import LEARNERS
from raygrid.learners.common.two_views import TwoViewSession
from raygrid.nn.augment import CropFlip
from raygrid.nn.contrastive.base import Branch, Framework
from raygrid.nn.contrastive.byol import ByolLoss
from raygrid.nn.contrastive.moco import MocoLoss
from raygrid.nn.contrastive.pairs import SupClLoss
from raygrid.nn.contrastive.simsiam import SimSiamLoss
from raygrid.nn.recipes import Recipe
from raygrid.nn.steps import Batch, Step
from raygrid.nn.trainer import Trainer
from raygrid.protocols import PROTOCOLS
from tests.conftest import toy
from tests.float64 import doubled
from tests.learners.toys import task_of

WARM = 2  # epochs, ten there


def rate_of_the_code(epoch: int, top: float, epochs: int, done: float = 0.0) -> float:
    """The rate of an epoch counted from 1, of which `done` is over."""
    low = top * 0.1**3

    def cosine(at: int) -> float:
        return low + (top - low) * (1 + math.cos(math.pi * at / epochs)) / 2

    if epoch <= WARM:
        return 0.01 + (done + epoch - 1) / WARM * (cosine(WARM) - 0.01)
    return cosine(epoch)


def loss_of_the_code(z: Tensor, labels: Tensor) -> Tensor:
    """SupConLoss over two views, temperature 0.5 over 0.07; labels: which rows belong together."""
    itself = torch.eye(len(z), dtype=z.dtype)
    positive = (labels[:, None] == labels).to(z.dtype) - itself
    logits = z @ z.T / 0.5
    logits = logits - logits.max(1, keepdim=True).values.detach()
    shares = logits - (logits.exp() * (1 - itself)).sum(1, keepdim=True).log()
    return -(0.5 / 0.07) * ((positive * shares).sum(1) / positive.sum(1)).mean()


def recipe_of(learner: str, epochs: int) -> Recipe:
    made = PROTOCOLS.make("tp").recipe(learner, "cifar10", 32)
    assert (made.epochs, made.warmup_epochs) == (1000, 10)
    return made.with_(epochs=epochs, warmup_epochs=WARM, batch_size=16, precision="fp32")


class Theirs:
    """Their training step on a copy of our framework, whose queue starts as ours."""

    def __init__(self, framework: Framework) -> None:
        self.framework = copy.deepcopy(framework).train()
        self.pointer = 0
        learned = [p for p in self.framework.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(learned, lr=1.0, momentum=0.9, weight_decay=1e-4)

    def step(self, a: Tensor, b: Tensor, labels: Tensor) -> None:
        self.optimizer.zero_grad()
        self.loss(a, b, labels).backward()
        self.optimizer.step()

    def loss(self, a: Tensor, b: Tensor, labels: Tensor) -> Tensor:
        made = self.framework
        if isinstance(made, MocoLoss):
            return self.moco(made, a, b)
        if isinstance(made, ByolLoss):
            return self.byol(made, a, b)
        if isinstance(made, SimSiamLoss):
            z = made.branch(a), made.branch(b)
            p = made.predictor(z[0]), made.predictor(z[1])
            likeness = [
                cosine_similarity(one, two.detach()) for one, two in zip(p, z[::-1], strict=True)
            ]
            return -(likeness[0].mean() + likeness[1].mean()) / 2
        rows = labels if isinstance(made, SupClLoss) else torch.arange(len(a))
        z_both = normalize(made.branch(torch.cat([a, b])), dim=1)
        return loss_of_the_code(z_both, rows.repeat(2))

    def moco(self, made: MocoLoss, a: Tensor, b: Tensor) -> Tensor:
        """The key network follows, keys enter the queue after the loss; temperature over 0.07."""
        q = normalize(made.branch(a), dim=1)
        moved(made.slow, made.branch, 0.99)
        with torch.no_grad():
            k = normalize(made.slow(b), dim=1)
        bank = made.queue.bank
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ bank.clone().T], 1) / 0.2
        bank[self.pointer : self.pointer + len(k)] = k
        self.pointer = (self.pointer + len(k)) % len(bank)
        made.queue.bank_ptr.fill_(self.pointer)
        return 0.2 / 0.07 * cross_entropy(logits, torch.zeros(len(q)).long())

    def byol(self, made: ByolLoss, a: Tensor, b: Tensor) -> Tensor:
        """Direction after direction, each after a move of the target."""
        total = torch.zeros(())
        for seen, other in ((a, b), (b, a)):
            moved(made.target, made.branch, 0.9)
            with torch.no_grad():
                wanted = made.target(other)
            likeness = cosine_similarity(made.predictor(made.branch(seen)), wanted)
            total = total - likeness.mean() / 2
        return total


def moved(slow: nn.Module, fast: nn.Module, momentum: float) -> None:
    with torch.no_grad():
        for one, other in zip(slow.parameters(), fast.parameters(), strict=True):
            one.copy_(one * momentum + other * (1 - momentum))


def in_float64(framework: Framework) -> None:
    """Encoders and projectors, whose outputs are float32."""
    for module in list(framework.modules()):
        if isinstance(module, Branch):
            doubled(module.network)
            module.projector.double()


SMALL = {
    "simclr": "hidden=32, output=16",
    "supcl": "hidden=32, output=16",
    "moco": "hidden=32, output=16, queue=48",
    "byol": "hidden=32, output=16, momentum=0.9",
    "simsiam": "hidden=32, predictor=16",
}


@pytest.mark.slow
@pytest.mark.parametrize("learner", SMALL)
def test_pre_training_is_that_of_its_code(learner: str) -> None:
    """Ten steps, while the rate rises with each: all weights and running statistics."""
    train, recipe = toy(88, 32, 4), recipe_of(learner, 40)
    task = task_of(
        train,
        recipe,
        architecture=ARCHITECTURES.make("small_cnn"),
        augmentation=CropFlip(4),
        normalization=((0.5, 0.5, 0.5), (0.2, 0.2, 0.2)),
    )
    session = LEARNERS.make(f"{learner}({SMALL[learner]}, neighbors=3)").start(task)
    assert isinstance(session, TwoViewSession)
    in_float64(session.framework)
    start, theirs = copy.deepcopy(session.framework.state_dict()), Theirs(session.framework)
    for epoch in range(WARM):
        session.trainer.epoch(epoch)

    def unused(batch: Batch) -> Step:
        raise AssertionError

    order = Trainer(nn.Linear(1, 1), unused, train, recipe, task.streams["data"])
    for epoch in range(WARM):
        for number, batch in enumerate(order.batches(epoch)):
            done = number / (88 // 16)
            rate = rate_of_the_code(epoch + 1, recipe.lr, 40, done)
            theirs.optimizer.param_groups[0]["lr"] = rate
            a, b = (session.views(batch.x, batch.rng) for _ in range(2))
            theirs.step(a, b, batch.y)
    wanted, changed = theirs.framework.state_dict(), 0
    for name, mine in session.framework.state_dict().items():
        change = float((wanted[name] - start[name]).abs().max())
        assert float((mine - wanted[name]).abs().max()) <= 1e-4 * change + 1e-7, name
        changed += change > 1e-4
    assert changed > 15


@pytest.mark.parametrize("learner", ["simclr", "moco", "byol", "simsiam", "supcl"])
def test_rates_of_pre_training_are_those_of_its_code(learner: str) -> None:
    """Step by step in the warm-up, then epoch by epoch; ours is one epoch behind: the card says."""
    epochs = 1000
    recipe = recipe_of(learner, epochs)
    for epoch in range(WARM):
        for done in (0.0, 0.25, 0.9):
            theirs = rate_of_the_code(epoch + 1, recipe.lr, epochs, done)
            assert recipe.rate(epoch + done) == pytest.approx(theirs)
    for epoch in range(WARM + 1, epochs, 83):
        assert recipe.rate(epoch) == pytest.approx(rate_of_the_code(epoch, recipe.lr, epochs))
        behind = recipe.rate(epoch) - rate_of_the_code(epoch + 1, recipe.lr, epochs)
        assert 0 < behind < 1.6e-3 * recipe.lr
