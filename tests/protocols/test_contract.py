"""What every protocol must hold, by being registered."""

from __future__ import annotations

import pytest

from raygrid.core.errors import SpecError
from raygrid.learners import LEARNERS
from raygrid.protocols import PROTOCOLS

CASES = [(p, le) for p in PROTOCOLS for le in LEARNERS if PROTOCOLS.tiny(p).has(le)]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_it_trains_some_learner_and_has_a_stand_in(name: str) -> None:
    protocol = PROTOCOLS.tiny(name)
    assert any(protocol.has(learner) for learner in LEARNERS)
    assert PROTOCOLS[protocol.stand_in].stand_in == protocol.stand_in, "it stands for itself"
    assert set(protocol.settings) <= set(LEARNERS)
    with pytest.raises(SpecError, match="no recipe for the learner nobody"):
        protocol.recipe("nobody", "cifar10", 32)


@pytest.mark.parametrize(("name", "learner"), CASES)
def test_what_a_spec_sets_wins_over_the_recipe(name: str, learner: str) -> None:
    usual = PROTOCOLS.make(name).recipe(learner, "cifar10", 32)
    assert usual.epochs >= 1
    assert usual.batch_size >= 2
    made = PROTOCOLS.make(f"{name}(epochs=7, batch_size=24, lr=0.125)")
    recipe = made.recipe(learner, "cifar10", 32)
    assert (recipe.epochs, recipe.batch_size, recipe.lr) == (7, 24, 0.125)
    assert recipe.optimizer == usual.optimizer
    assert all(recipe.rate(epoch) >= 0 for epoch in range(7))
