"""Every input of a trial, a purified set or a bridge changes its key: none stands for another."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raygrid.trials.catalog import Catalog
from raygrid.trials.resolve import resolve
from raygrid.trials.trial import Trial
from tests import plugin

assert plugin.CARD
CELL = "dots/{}/bridgepure(pairs=8)/small_cnn/supervised/brief/0"


def at(attack: str, catalog: Catalog) -> Trial:
    return resolve(CELL.format(attack), catalog)


def test_other_data_and_every_other_field_of_the_recipe_give_another_key(catalog: Catalog) -> None:
    trial = at("lsp", catalog)
    assert replace(trial, spec=trial.spec).key == trial.key
    assert replace(trial, content="other").key != trial.key
    changes = {"epochs": 9, "batch_size": 7, "lr": 0.011, "momentum": 0.5, "grad_clip": 1.0}
    recipes = [trial.recipe.with_(**{name: value}) for name, value in changes.items()]
    assert len({trial.key, *(replace(trial, recipe=r).key for r in recipes)}) == 6


def test_what_is_made_of_another_share_of_a_poison_has_another_key(catalog: Catalog) -> None:
    """The poison is the same: its own key does not tell the shares apart."""
    whole, half = at("lsp", catalog), at("lsp@0.5", catalog)
    assert whole.poison.key == half.poison.key
    bridges = [trial.priors[0] for trial in (whole, half)]
    assert bridges[0] is not None
    assert bridges[1] is not None
    assert bridges[0].key != bridges[1].key
    purified = [replace(trial.purified, priors=()) for trial in (whole, half) if trial.purified]
    assert purified[0].key != purified[1].key


@pytest.mark.parametrize("near", ["0.0315", "0.0314", "0.032", "0.031"])
def test_a_budget_beside_a_level_has_a_key_of_its_own(near: str, catalog: Catalog) -> None:
    on, off = (
        at(f"tap(budget={value}, surrogate=small_cnn)", catalog) for value in ("8/255", near)
    )
    assert str(on.spec) != str(off.spec)
    assert on.poison.key != off.poison.key
