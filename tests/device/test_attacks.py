"""Every attack makes on a device the poison that it makes on a CPU, bit for bit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from raygrid.attacks.base import Attack, AttackContext
from raygrid.attacks.common.surrogate_training import train_surrogate
from raygrid.core.images import Images
from raygrid.core.seeds import Stream
from raygrid.nn.networks import freeze
from tests.attacks import test_targeted as targeted
from tests.attacks.test_attacks import AVAILABILITY, small
from tests.conftest import toy
from tests.device.pretend import CPU, DEVICE, Log

SLOW = {"aap", "cp", "tue"}  # pairs of views: seconds each, and others take the same way
ATTACKS = [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in AVAILABILITY]
TARGETED = [n for n in targeted.TARGETED if n != "clbd"] + ["clbd"]


def context_for(attack: Attack, images: Images, device: torch.device) -> AttackContext:
    networks = {
        recipe.name: freeze(train_surrogate(recipe, images, Stream("surrogate"), device))
        for recipe in attack.needs()
    }
    return AttackContext(Stream("poison", ("device",)), device, surrogates=networks)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack(name: str, log: Log, moved: list[int]) -> None:
    """One that has the whole set there at once says so, for a plan to know what it takes."""
    attack, images = small(name), toy(64 if name == "file" else 32)
    there = attack.poison(images, context_for(attack, images, CPU)).pixels
    given = context_for(attack, images, DEVICE)
    log.reset()
    moved.clear()
    here = attack.poison(images, given).pixels
    assert (attack.holds >= 1) == (sum(moved) >= len(images)), moved
    assert here.device == CPU
    assert torch.equal(here, there)
    assert not log.drawn


@pytest.mark.parametrize("name", TARGETED)
def test_an_attack_on_a_target(name: str, log: Log) -> None:
    attack, images = targeted.small(name), toy(160)
    there = attack.poison(images, targeted.context())
    away = targeted.context()
    networks = {key: train(DEVICE) for key in away.surrogates}
    log.reset()
    here = attack.poison(images, replace(away, device=DEVICE, surrogates=networks))
    assert torch.equal(here.indices, there.indices)
    assert torch.equal(here.pixels, there.pixels)
    assert not log.drawn


def train(device: torch.device) -> torch.nn.Module:
    """The extractor of the targeted attacks' tests, on a device."""
    import copy

    return freeze(copy.deepcopy(targeted.extractor()).to(device))
