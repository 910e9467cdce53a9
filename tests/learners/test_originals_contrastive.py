"""Pre-training of contrastive learners beside TrustMLRG/TransPoison@2d08a9c and its base.

kaiwenzha/contrastive-poisoning@628838c: main.py (train), util.py (warmup_learning_rate,
adjust_learning_rate), losses.py (SupConLoss). Same images, weights, order and views; in float64.
"""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from raygrid.architectures import ARCHITECTURES
from raygrid.core.seeds import Stream
from raygrid.core.spec import Part
from raygrid.defenses.base import Chain
from raygrid.learners import LEARNERS
from raygrid.learners.base import Task
from raygrid.learners.common.two_views import TwoViewSession
from raygrid.nn.augment import CropFlip
from raygrid.nn.recipes import Recipe
from raygrid.nn.trainer import Batch, Step, Trainer
from raygrid.protocols import PROTOCOLS
from tests.conftest import toy
from tests.float64 import doubled

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


@pytest.mark.slow
@pytest.mark.parametrize("learner", ["simclr", "supcl"])
def test_pre_training_is_that_of_its_code(learner: str) -> None:
    """Ten steps, while the rate rises with each: all weights and running statistics."""
    train, recipe = toy(88, 32, 4), recipe_of(learner, 40)
    task = Task(
        train=train,
        labeled=train,
        architecture=ARCHITECTURES.make("small_cnn"),
        recipe=recipe,
        defense=Chain.make((Part("standard"),)),
        streams={a: Stream(a, ("toy", 0)) for a in ("init", "data", "views", "probe")},
        augmentation=CropFlip(4),
        normalization=((0.5, 0.5, 0.5), (0.2, 0.2, 0.2)),
    )
    session = LEARNERS.make(f"{learner}(hidden=32, output=16, neighbors=3)").start(task)
    assert isinstance(session, TwoViewSession)
    doubled(session.network)
    branch = session.framework.branch
    branch.projector.double()
    start, other = copy.deepcopy(branch), copy.deepcopy(branch).train()
    for epoch in range(WARM):
        session.trainer.epoch(epoch)

    def unused(batch: Batch) -> Step:
        raise AssertionError

    optimizer = torch.optim.SGD(other.parameters(), lr=1.0, momentum=0.9, weight_decay=1e-4)
    order = Trainer(nn.Linear(1, 1), unused, train, recipe, task.streams["data"])
    for epoch in range(WARM):
        for number, batch in enumerate(order.batches(epoch)):
            done = number / (88 // 16)
            optimizer.param_groups[0]["lr"] = rate_of_the_code(epoch + 1, recipe.lr, 40, done)
            views = [session.views(batch.x, batch.rng) for _ in range(2)]
            labels = batch.y if learner == "supcl" else torch.arange(len(batch.y))
            optimizer.zero_grad()
            loss_of_the_code(normalize(other(torch.cat(views)), dim=1), labels.repeat(2)).backward()
            optimizer.step()
    first, theirs = start.state_dict(), other.state_dict()
    for name, mine in branch.state_dict().items():
        change = float((theirs[name] - first[name]).abs().max())
        assert float((mine - theirs[name]).abs().max()) <= 1e-5 * change, name
        fixed = any(part in name for part in ("normalize", "head", "num_batches"))
        assert fixed or change > 1e-3, name


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
