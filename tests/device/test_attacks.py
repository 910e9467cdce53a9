"""Every attack makes on a device the poison that it makes on a CPU, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from raygrid.attacks.base import Attack, AttackContext
from raygrid.attacks.common.surrogate_training import train_surrogate
from raygrid.core.images import Images
from raygrid.core.seeds import Stream
from raygrid.nn.trainer import freeze
from tests.attacks.test_attacks import AVAILABILITY, small
from tests.device.pretend import CPU, DEVICE, Log, watched

STREAM = Stream("poison", ("device",))


@pytest.fixture
def log() -> Iterator[Log]:
    with watched() as log:
        yield log


def context_for(attack: Attack, images: Images, device: torch.device) -> AttackContext:
    networks = {
        recipe.name: freeze(train_surrogate(recipe, images, Stream("surrogate"), device))
        for recipe in attack.needs()
    }
    return AttackContext(STREAM, device, surrogates=networks)


@pytest.mark.parametrize("name", AVAILABILITY)
def test_an_attack(name: str, images: Images, log: Log) -> None:
    attack = small(name)
    there = attack.poison(images, context_for(attack, images, CPU)).pixels
    log.reset()
    here = attack.poison(images, context_for(attack, images, DEVICE)).pixels
    assert here.device == CPU
    assert torch.equal(here, there)
    assert not log.drawn
