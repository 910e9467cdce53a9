"""What a training step waits for: a ratchet, by counts on the pretend device.

A read makes the host wait for the device, an upload from plain memory makes it wait for the copy.
What is sent without waiting (order and draws, many batches at a time) is counted apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from raygrid.core.spec import Part
from raygrid.defenses.base import Chain
from raygrid.learners.base import Session
from tests.conftest import toy
from tests.device.pretend import DEVICE, Log, watched
from tests.device.test_training import task_on
from tests.learners.test_learners import RECIPE, small

STEPS = 6
WAITS = {"standard": 0, "none": 0, "cutout": 0, "cutmix": 0, "mixup": 0, "at": 0}
PAIRS = {"simclr": 1, "moco": 1, "byol": 1, "simsiam": 1}


@pytest.fixture
def log() -> Iterator[Log]:
    with watched() as log:
        yield log


def waits(session: Session, log: Log) -> tuple[float, dict[str, int]]:
    """Reads and waiting uploads a step, and where they are; the first two steps do not count."""
    trainer = session.trainer  # type: ignore[attr-defined]
    batches = trainer.batches(0)
    for _ in range(2):
        trainer.update(next(batches))
    log.reset()
    for batch in batches:
        trainer.update(batch)
    found = {f"{name} {place}": n for (name, place), n in log.syncs.items()}
    for (name, place), n in log.uploads.items():
        if "non_blocking" not in name:
            found[f"{name} {place}"] = n
    return sum(found.values()) / (STEPS - 2), found


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
