"""Scores of a classifier against one plain pass over the very images that a question is about."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from raygrid.core.images import Images, Poison
from raygrid.protocols.setups import SetupRule
from raygrid.trials.artifacts import World
from raygrid.trials.evaluate import IMAGES_AT_ONCE, Probed, ask, probes_for, score
from tests.conftest import seeded, toy


def negative(x: Tensor) -> Tensor:
    return 1 - x


def classifier(side: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3 * side * side, 4))


def answers(net: nn.Module, images: Images) -> tuple[int, int, float, float]:
    """Hits, images, mean loss and mean log-odds of one pass over all images at once."""
    with torch.no_grad():
        odds = net.eval()(negative(images.floats())).double().softmax(1)
    own = odds[torch.arange(len(images)), images.labels]
    hits = int((odds.argmax(1) == images.labels).sum())
    return hits, len(images), float(-own.log().mean()), float((own / (1 - own)).log().mean())


def test_every_image_counts_once_however_many_are_asked_at_a_time() -> None:
    images, net = toy(IMAGES_AT_ONCE + 80, side=8), classifier(8).train()
    found = score(net, images, negative, odds=True)
    assert net.training
    hits, count, loss, odds = answers(net, images)
    assert (found.k, found.n) == (hits, count)
    assert (found.loss, found.logodds) == pytest.approx((loss, odds), rel=1e-4)


def asked(world: World, poison: Poison, mask: Tensor, wanted: dict[str, Images]) -> None:
    """The questions are these, and their answers those of a pass over the images that are meant."""
    net = classifier(world.test.shape[-1])
    probes = probes_for(world, poison, mask)
    scores = ask(net, [Probed(p.name, p.images, negative, odds=True) for p in probes])
    assert set(scores) == set(wanted)
    for name, found in scores.items():
        given = found.k, found.n, found.loss, found.logodds
        assert given == pytest.approx(answers(net, wanted[name]), rel=1e-3), name


def test_each_view_of_partial_poisoning_is_asked_about_its_own_images() -> None:
    train, test = toy(40, side=8, seed=1), toy(24, side=8, seed=2)
    rows = torch.randperm(40, generator=seeded())
    mask = torch.zeros(40, dtype=torch.bool)
    mask[rows[:12]] = True
    dark = train.pixels // 3
    poison = Poison(rows, dark[rows], train.labels[rows])
    wanted = {
        "clean_test": test,
        "unlearnable": train.with_pixels(dark).rows(mask),
        "original": train.rows(mask),
        "clean_train": train.rows(~mask),
    }
    asked(World(train, test, None), poison, mask, wanted)


def test_the_target_is_shown_with_its_trigger_plain_and_mirrored() -> None:
    train, test = toy(120, seed=1), toy(40, seed=2)
    scene = SetupRule("toy/transfer", poisons=5, per_class=20).scene(0, train, test)
    trigger, label = scene.triggers["htbd"], torch.tensor([scene.wanted])
    rows = scene.slots.flip(0)
    mask = torch.zeros(len(scene.train), dtype=torch.bool)
    mask[rows] = True
    dark = scene.train.pixels // 3
    poison = Poison(rows, dark[rows], scene.train.labels[rows], trigger=trigger)
    pasted = trigger.apply(scene.target)
    shown = {"target": pasted, "target_hflip": pasted.flip(-1), "target_plain": scene.target}
    shown |= {f"target_{name}": t.apply(scene.target) for name, t in scene.triggers.items()}
    wanted = {name: Images(pixels, label, 4) for name, pixels in shown.items()}
    wanted["poison_train"] = scene.train.with_pixels(dark).rows(mask)
    wanted |= {"clean_test": test, **scene.groups(test, trigger)}
    asked(World(scene.train, test, None, scene), poison, mask, wanted)
