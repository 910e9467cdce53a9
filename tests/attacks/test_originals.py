"""Attacks beside the rules of their authors' code, written down anew, on the same tensors.

Every expectation is worked out from what the named file at the named commit does; no text of it is
taken over.
"""

from __future__ import annotations

import math

import pytest

from raygrid.attacks import ATTACKS
from raygrid.attacks.aap import Aap
from raygrid.nn.recipes import Recipe
from raygrid.protocols import PROTOCOLS

# AAP and the protocol `aue`: EhanW/AUE-AAP@64fb25f, utils.py (cosine_annealing)


def risen_cosine(epoch: int, epochs: int, top: float, end: float, warmup: int = 10) -> float:
    """The rate of an epoch: its share of the warm-up, then half a cosine over what is left."""
    if epoch < warmup:
        return top * (epoch + 1) / warmup
    done = (epoch - warmup) / (epochs - warmup)
    return end + (top - end) * (1 + math.cos(math.pi * done)) / 2


@pytest.mark.parametrize("learner", ["aap", "supervised", "simclr", "byol", "moco", "simsiam"])
def test_rates_of_aap_and_aue_rise_to_their_full_height(learner: str) -> None:
    top = {"byol": 1.0, "moco": 0.3, "simsiam": 0.1}.get(learner, 0.5)
    made, epochs = _recipe(learner)
    assert made.epochs == epochs
    for epoch in range(epochs):
        expected = risen_cosine(epoch, epochs, top, 1e-6)
        assert made.rate(epoch) == pytest.approx(expected, rel=1e-9), epoch
    assert made.rate(9) == made.rate(10) == top


def _recipe(learner: str) -> tuple[Recipe, int]:
    if learner == "aap":
        attack = ATTACKS.make("aap")
        assert isinstance(attack, Aap)
        return attack.recipe.recipe, 40
    epochs = 200 if learner == "supervised" else 1000
    return PROTOCOLS.make("aue").recipe(learner, "cifar10", 32), epochs
