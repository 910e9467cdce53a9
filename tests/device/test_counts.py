"""What a training step waits for: a ratchet, by counts on the pretend device.

A read makes the host wait for the device, an upload from plain memory makes it wait for the copy.
What is sent without waiting (order and draws, many batches at a time) is counted apart.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from torch import nn

from raygrid.architectures import ARCHITECTURES
from raygrid.core.spec import Part
from raygrid.defenses.chain import Chain
from raygrid.learners.base import Session
from tests.attacks.test_attacks import AVAILABILITY
from tests.attacks.test_attacks import small as attack_of
from tests.conftest import toy
from tests.device.pretend import CPU, DEVICE, Log
from tests.device.test_attacks import context_for
from tests.device.test_training import same, task_on
from tests.learners.toys import RECIPE, small

STEPS = 6
WAITS = {"standard": 0, "none": 0, "cutout": 0, "cutmix": 0, "mixup": 0, "at": 0}
PAIRS = {"simclr": 1, "moco": 1, "byol": 1, "simsiam": 1}


def waits(session: Session, log: Log) -> tuple[float, dict[str, int]]:
    """Reads and waiting uploads a step, and where they are; the first two steps do not count."""
    trainer = session.trainer  # type: ignore[attr-defined]
    batches = trainer.batches(0)
    for _ in range(2):
        trainer.update(next(batches))
    log.reset()
    for batch in batches:
        trainer.update(batch)
    found = waiting(log)
    return sum(found.values()) / (STEPS - 2), found


def waiting(log: Log) -> dict[str, int]:
    """What the host waited for since the log began, by place."""
    found = {f"{name} {place}": n for (name, place), n in log.syncs.items()}
    for (name, place), n in log.uploads.items():
        if "non_blocking" not in name:
            found[f"{name} {place}"] = n
    return found


def session_of(learner: str, defense: str) -> Session:
    images = toy(STEPS * 16, 32, 10)
    chain = Chain.make(tuple(Part.parse(text) for text in defense.split("+")))
    recipe = replace(RECIPE, precision="bf16")
    return small(learner).start(task_on(DEVICE, images, defense=chain, recipe=recipe))


@pytest.mark.parametrize("defense", [*WAITS, "ueraser_lite", "ueraser_max"])
def test_a_supervised_step_waits_for_nothing(defense: str, log: Log) -> None:
    count, places = waits(session_of("supervised", defense), log)
    assert count <= WAITS.get(defense, 0), places
    if defense in WAITS:
        assert sum(log.uploads.values()) == 0, "draws are there already"


@pytest.mark.parametrize("learner", PAIRS)
def test_a_step_on_pairs_waits_once_at_most(learner: str, log: Log) -> None:
    count, places = waits(session_of(learner, "standard"), log)
    assert count <= PAIRS[learner], places
    assert sum(log.uploads.values()) == 0, "draws are there already, and nothing else is sent"


ALLOWED = {
    "rem": "nn/pgd.py",  # each step ends a descent of its own, which is asked once if it is finite
    "sep": "nn/pgd.py",
    "tue": "aten::_unique2",  # which classes a batch has
}
"""Reads that an inner step still waits for, by attack."""
STEPPED = [name for name in AVAILABILITY if "steps" in {f.name for f in fields(attack_of(name))}]


@pytest.mark.parametrize("name", STEPPED)
def test_an_inner_step_of_an_attack_waits_for_nothing(name: str, log: Log) -> None:
    """More steps, and everything else as before: no more reads, no more waiting uploads."""
    images = toy(16)
    counts = []
    for steps in (2, 5):
        attack = replace(attack_of(name), steps=steps)  # type: ignore[call-arg]
        context = context_for(attack, images, DEVICE)
        log.reset()
        attack.poison(images, context)
        counts.append(waiting(log))
    known = ALLOWED.get(name, "nothing")
    more = {place: n - counts[0].get(place, 0) for place, n in counts[1].items()}
    late = {place: n for place, n in more.items() if n > 0 and known not in place}
    assert not late


KERNELS = {"small_resnet": 99, "resnet18": 173}
"""Launches of a training step in bf16 at most: forward, backward and optimizer."""


@pytest.mark.parametrize("name", ["small_resnet", pytest.param("resnet18", marks=pytest.mark.slow)])
def test_a_step_is_so_many_kernels(name: str, log: Log) -> None:
    """None counts for a batch norm; all weights are cast at once, to the numbers of a CPU."""
    kind, states = ARCHITECTURES.tiny(name), []
    recipe = replace(RECIPE, precision="bf16", batch_size=4)
    for device in (CPU, DEVICE):
        task = task_on(device, toy(STEPS * 4, 32, 10), recipe=recipe, architecture=kind)
        session: Any = small("supervised").start(task)
        log.reset()
        session.epoch(0)
        states.append(session.state_dict())
    assert same(*states)
    waits(session, log)
    kernels = {op: n / (STEPS - 2) for (op, _), n in log.kernels.items()}
    assert sum(kernels.values()) <= KERNELS[name]
    layers = sum(isinstance(m, nn.BatchNorm2d) for m in session.network.modules())
    assert kernels["aten::native_batch_norm"] == layers
    assert kernels["aten::add_"] < layers
    assert kernels["aten::_to_copy"] < layers
