"""The one training loop beside ports of the loops whose numbers are printed, step by step.

Same images, weights, order and offsets of crops; images there go through Pillow one by one.
Whole networks compute in float64 but for their scores: in float32 rounding grows to a hundredth of
the change within 40 steps.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms import functional as pictures

from raygrid.architectures import ARCHITECTURES
from raygrid.architectures.networks.network import Network
from raygrid.core.images import Images
from raygrid.learners import LEARNERS
from raygrid.learners.base import Task
from raygrid.learners.linear_probe import ProbeSession
from raygrid.learners.supervised import SupervisedSession
from raygrid.nn.augment import CropFlip
from raygrid.nn.networks import freeze
from raygrid.nn.recipes import Recipe
from raygrid.nn.steps import Batch, Step
from raygrid.nn.trainer import Trainer
from raygrid.protocols import PROTOCOLS
from tests.conftest import toy
from tests.float64 import doubled
from tests.learners.toys import task_of

MEANS, SDS = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)  # learning_module.py, CIFAR-10
EPOCHS = 8
Seen = tuple[Tensor, Tensor]


def images() -> Images:
    """88 of them: five batches of 16 and an incomplete one."""
    return toy(88, 32, 4)


def recipe_of(protocol: str, learner: str, architecture: str = "") -> Recipe:
    """A protocol's in eight epochs of small batches, milestones at their shares, in float32."""
    made = PROTOCOLS.make(f"{protocol}(epochs={EPOCHS}, batch_size=16)")
    return made.recipe(learner, "cifar10", 32, (), architecture).with_(precision="fp32")


def their_task(train: Images, recipe: Recipe) -> Task:
    extractor = ARCHITECTURES.make("small_cnn").build(7, 32, 1)
    extractor.normalize_by(MEANS, SDS)
    return task_of(
        train,
        recipe,
        architecture=ARCHITECTURES.make("small_cnn"),
        augmentation=CropFlip(4),
        normalization=(MEANS, SDS) if recipe.normalize else None,
        extractor=freeze(extractor),
    )


def shown(task: Task, normalized: bool) -> Iterator[list[Seen]]:
    """What a data loader with RandomCrop(32, padding=4), a flip and ToTensor gives, epoch by epoch.

    The order of rows and the draws are those of our training.
    """

    def unused(batch: Batch) -> Step:
        raise AssertionError

    order = Trainer(nn.Linear(1, 1), unused, task.train, task.recipe, task.streams["data"])
    for epoch in range(EPOCHS):
        batches = []
        for batch in order.batches(epoch):
            offsets, flips = CropFlip(4).sample(batch.x, batch.rng)
            pixels = task.train.pixels[batch.index]
            cut = [picture(*one) for one in zip(pixels, offsets, flips, strict=True)]
            x = torch.stack(cut)
            batches.append((pictures.normalize(x, MEANS, SDS) if normalized else x, batch.y))
        yield batches


def picture(pixels: Tensor, offset: Tensor, flip: Tensor) -> Tensor:
    """One image through Pillow: black border, cut out, mirrored, back to floats."""
    padded = pictures.pad(pictures.to_pil_image(pixels), [4])
    cut = pictures.crop(padded, int(offset[0]), int(offset[1]), 32, 32)
    return pictures.to_tensor(pictures.hflip(cut) if flip else cut)


@dataclass
class Followed:
    """Weights and buffers at the end, and the rate of every epoch."""

    state: dict[str, Tensor]
    rates: list[float]


def followed(
    network: nn.Module,
    epochs: Iterator[list[Seen]],
    optimizer: torch.optim.Optimizer,
    before: Callable[[int], None],
    after: Callable[[], None],
) -> Followed:
    """Cross-entropy batch after batch; `before` and `after` an epoch the rate may change."""
    rates = []
    for number, batches in enumerate(epochs):
        before(number)
        rates.append(optimizer.param_groups[0]["lr"])
        for x, y in batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x).float(), y).backward()
            optimizer.step()
        after()
    return Followed(network.state_dict(), rates)


def assert_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor], start: Network) -> None:
    """To a share of the largest change of a tensor."""
    first, moved = start.state_dict(), 0
    for name, mine in ours.items():
        change = float((theirs[name] - first[name]).abs().max())
        assert float((mine - theirs[name]).abs().max()) <= 1e-5 * change, name
        moved += change > 1e-3
    assert moved > 1


# lafeat/apbench@9a6fb91: train.py (main, train), util.py (aug_train, get_loader)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["apbench", "apbench_repo"])
@pytest.mark.parametrize("adam", [False, True])
def test_supervised_training_is_that_of_apbench(protocol: str, adam: bool) -> None:
    """SGD, for its transformers Adam, whose rates are halved after 100, 200 and 300 epochs."""
    recipe = recipe_of(protocol, "supervised", "vit_small" if adam else "resnet18")
    task = their_task(images(), recipe)
    session = LEARNERS.make("supervised").start(task)
    assert isinstance(session, SupervisedSession)
    doubled(session.network)
    start, network = copy.deepcopy(session.network), copy.deepcopy(session.network).train()
    rates = [session.epoch(epoch)["lr"] for epoch in range(EPOCHS)]
    optimizer: torch.optim.Optimizer = torch.optim.SGD(
        network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4
    )
    if adam:
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    halves = [epoch * EPOCHS // 200 for epoch in (100, 200, 300)]
    falls = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=halves, gamma=0.5)
    theirs = followed(network, shown(task, False), optimizer, lambda number: None, falls.step)
    assert rates == pytest.approx(theirs.rates)
    assert len(set(rates)) == 2
    assert_equal(session.network.state_dict(), theirs.state, start)


@pytest.mark.parametrize("protocol", ["apbench", "apbench_repo"])
def test_rates_of_apbench_are_those_of_all_its_epochs(protocol: str) -> None:
    recipe = PROTOCOLS.make(protocol).recipe("supervised", "cifar10", 32)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    falls = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[100, 200, 300], gamma=0.5)
    for epoch in range(recipe.epochs):
        assert recipe.rate(epoch) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        falls.step()
    assert recipe.epochs == 200


# aks2203/poisoning-benchmark@97a67ae: poison_test.py, learning_module.py (train, set_defaults)


@pytest.mark.parametrize(
    "learner",
    [
        "linear_probe",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("finetune", "supervised")),
    ],
)
def test_victims_are_trained_as_in_the_benchmark(learner: str) -> None:
    """A new last layer alone, in eval mode; a pre-trained network with one; a fresh network."""
    recipe = recipe_of("just_how_toxic", learner)
    task = their_task(images(), recipe)
    session = LEARNERS.make(learner).start(task)
    if isinstance(session, ProbeSession):
        start = copy.deepcopy(session.network)
        start.head = copy.deepcopy(session.model.head)
    else:
        assert isinstance(session, SupervisedSession)
        start = copy.deepcopy(doubled(session.network))
    network = copy.deepcopy(start)
    network.normalize = nn.Identity()  # its loader does that
    if learner != "linear_probe":
        doubled(network)
    network.requires_grad_(learner != "linear_probe")
    network.head.requires_grad_(True)
    network.train(learner != "linear_probe")
    rates = [session.epoch(epoch)["lr"] for epoch in range(EPOCHS)]
    optimizer = torch.optim.SGD(network.parameters(), lr=rates[0], momentum=0.9, weight_decay=2e-4)
    falls = [100, 150] if learner == "supervised" else [30]
    usual = 200 if learner == "supervised" else 40

    def adjust(epoch: int) -> None:
        if epoch in [fall * EPOCHS // usual for fall in falls]:
            for group in optimizer.param_groups:
                group["lr"] *= 0.1

    theirs = followed(network, shown(task, True), optimizer, adjust, lambda: None)
    assert rates == pytest.approx(theirs.rates)
    assert rates[0] == pytest.approx({"supervised": 0.1}.get(learner, 0.01))
    ours = session.network.state_dict()
    if isinstance(session, ProbeSession):
        ours = {**ours, "head.weight": session.model.head.weight.detach()}
        ours["head.bias"] = session.model.head.bias.detach()
        assert torch.equal(ours["body.0.weight"], start.state_dict()["body.0.weight"])
    kept = {name: tensor for name, tensor in ours.items() if "normalize" not in name}
    assert_equal(kept, theirs.state, start)
