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


@pytest.mark.parametrize("name", PROTOCOLS)
def test_numbers_that_nobody_can_train_with_are_refused_by_name(name: str) -> None:
    """batch_size and lr were refused by the recipe alone, which knows of no protocol."""
    for setting, allowed in (
        ("batch_size=1", "batch_size is 1, allowed are 2 and more"),
        ("lr=0", "lr is 0.0, allowed are positive numbers"),
        ("epochs=0", "epochs is 0, allowed from 1"),
    ):
        with pytest.raises(SpecError) as refused:
            PROTOCOLS.make(f"{name}({setting})")
        assert str(refused.value).startswith(f"{name}({setting}): {allowed}")


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


def test_transformers_learn_at_the_rate_that_a_source_prints_or_at_one_of_ours() -> None:
    """psandovalsegura/learn-from-unlearnable@605dea2, orthogonal_projection_step_2.py."""
    theirs = PROTOCOLS.make("op").recipe("supervised", "cifar10", 32, (), "vit_small")
    assert (theirs.optimizer, theirs.weight_decay, theirs.epochs) == ("adam", 5e-5, 50)
    rates = [theirs.rate(epoch) for epoch in (0, 4, 5, 50)]
    assert rates == pytest.approx([2e-4, 1e-3, 1e-3, 1e-5])
    ours = PROTOCOLS.make("iss").recipe("supervised", "cifar10", 32, (), "vit_small")
    assert (ours.optimizer, ours.lr, ours.epochs) == ("adam", 1e-4, 200)


def test_ueraser_on_imagenet_lasts_as_long_as_in_the_code_whose_views_it_has() -> None:
    """lafeat/apbench@9a6fb91: 200 epochs in imagenet_train.py, 300 printed for five views."""
    protocol = PROTOCOLS.make("apbench")
    epochs = [
        protocol.recipe("supervised", dataset, 32, ("ueraser_max",), "resnet18").epochs
        for dataset in ("imagenet100", "cifar10")
    ]
    assert epochs == [200, 300]
