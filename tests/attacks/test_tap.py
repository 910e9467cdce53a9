"""TAP against steps worked out by hand."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from raygrid.attacks import ATTACKS
from raygrid.attacks.base import AttackContext
from raygrid.attacks.common.surrogate_training import accuracy
from raygrid.attacks.tap import Tap, TapFull
from raygrid.core.images import Images
from raygrid.core.seeds import Stream
from tests.attacks.test_attacks import craft_for
from tests.attacks.toys import WORLD, make, victim


def test_tap_descends_the_next_class() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0], [2.0, 0.0, -1.0]])
    attack = ATTACKS.make("tap")
    assert isinstance(attack, Tap)
    log = logits.log_softmax(1)
    expected = torch.stack([-log[0, 1], -log[1, 0]])
    torch.testing.assert_close(attack.losses(logits, torch.tensor([0, 2])), expected)
    away = dataclasses.replace(attack, targeted=False)
    torch.testing.assert_close(
        away.losses(logits, torch.tensor([0, 2])), torch.stack([log[0, 0], log[1, 2]])
    )


def test_tap_starts_on_a_third_of_the_faces(images: Images) -> None:
    attack = make("tap")
    assert isinstance(attack, Tap)
    noise = attack.first(images.floats(), torch.arange(64), craft_for(attack, images))
    at_face = (noise.abs() - 8 / 255).abs() < 1e-7
    assert float(at_face.float().mean()) == pytest.approx(0.3173, abs=0.01)  # P(|N(0, 1)| > 1)
    assert noise.abs().max() <= 8 / 255 + 1e-7


def test_tap_leads_the_surrogate_to_the_next_class() -> None:
    # The toy patterns do not survive shifts, so this surrogate has seen none.
    images = WORLD
    attack = make("tap", steps=15, step=0.15, augmentation="none")
    context = AttackContext(Stream("poison"), surrogates={"tap40": victim(images)})
    poisoned = images.with_pixels(attack.pixels(images, context))
    moved = dataclasses.replace(poisoned, labels=(images.labels + 1) % 4)
    network = context.surrogates["tap40"]
    assert accuracy(network, images) > 0.8
    assert accuracy(network, moved) > 0.8
    assert accuracy(network, poisoned) < 0.2


def test_tap_full_keeps_the_run_with_the_smallest_loss(images: Images) -> None:
    settings = {"surrogate_epochs": 2, "steps": 2, "step": 0.2, "batch_size": 32}
    attack = make("tap_full", restarts=3, **settings)
    assert isinstance(attack, TapFull)
    context = craft_for(attack, images)
    chosen = attack.propose(images, context)
    losses, runs = [], []
    for number in range(3):
        part = dataclasses.replace(context, stream=context.stream.child("restart", number))
        runs.append(make("tap", **settings).propose(images, part))
        logits = context.surrogates["tap40"](images.with_pixels(runs[-1]).floats())
        losses.append(float(nn.functional.cross_entropy(logits, (images.labels + 1) % 4)))
    assert len(set(losses)) == 3
    assert torch.equal(chosen, runs[losses.index(min(losses))])
    assert context.facts["loss"] == pytest.approx(min(losses), rel=1e-5)
