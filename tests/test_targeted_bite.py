"""Attacks on a target raise its odds for the wanted label, in the order that their papers expect.

Shifts of the log-odds against the clean victim of the same set-up, frozen small_cnn, 25 poisons in
250 images of the class, 32/255, no augmentation. Measured once, set-ups 0 and 1: noise -0.11 and
-0.24, released collision 1.06 and 1.36, collision 1.28 and 1.57, hull 1.85 and 1.79, bullseye
2.12 and 2.25. On these networks the hull lies above the collision, not below as in the papers.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean

import pytest

from raygrid.artifacts import Artifact
from raygrid.attacks import ATTACKS
from raygrid.resolve import Catalog, resolve
from raygrid.spec import Part
from raygrid.store import Bundle
from raygrid.trial import Env, run_trial

Fetch = Callable[[Artifact], Bundle]
SETUPS = range(6)


def shifts(catalog: Catalog, fetch: Fetch, part: str) -> tuple[list[float], list[float]]:
    """By set-up: how far the log-odds rise, and how far test accuracy falls."""
    given = Part.parse(part)
    attack = Part.of(given.name, **{**ATTACKS[given.name].quick, **dict(given.params)})
    rises, drops = [], []
    for number in SETUPS:
        rows = []
        for each in ("clean", str(attack)):
            text = f"photo_digits_last/{each}/none/small_cnn/linear_probe/toxic_quick/{number}"
            result = run_trial(resolve(text, catalog), fetch, Env())
            assert result.error is None
            rows.append(result.probes)
        rises.append(rows[1]["target"]["logodds"] - rows[0]["target"]["logodds"])
        drops.append(rows[0]["clean_test"]["acc"] - rows[1]["clean_test"]["acc"])
    return rises, drops


@pytest.mark.slow
def test_attacks_on_the_features_are_ordered_as_expected(catalog: Catalog, fetch: Fetch) -> None:
    parts = {
        "noise": "base_noise(budget=32/255)",
        "released": "feature_collision(budget=32/255, variant=released)",
        "hull": "convex_polytope(budget=32/255)",
        "collision": "feature_collision(budget=32/255)",
        "bullseye": "bullseye_polytope(budget=32/255)",
    }
    found = {name: shifts(catalog, fetch, part) for name, part in parts.items()}
    rise = {name: mean(rises) for name, (rises, _) in found.items()}
    drop = {name: mean(drops) for name, (_, drops) in found.items()}
    assert abs(rise["noise"]) < 0.5
    assert rise["noise"] < rise["released"] < rise["collision"] < rise["bullseye"]
    assert rise["noise"] < rise["hull"] < rise["bullseye"]
    assert min(found["bullseye"][0]) > 0
    assert max(drop.values()) < 0.05


@pytest.mark.slow
def test_a_plain_backdoor_works_and_a_clipped_one_does_not(catalog: Catalog, fetch: Fetch) -> None:
    """Whole networks from scratch; patched test images of other classes: 0.96 and 0.01."""
    parts = {
        "clean": "clean",
        "dirty": "patch_dirty",
        "clipped": "clbd(surrogate=small_cnn, surrogate_epochs=8)",
    }
    rates = {}
    for name, part in parts.items():
        text = f"photo_digits/{part}/none/small_cnn/supervised/toxic_quick(poisons=100)/0"
        result = run_trial(resolve(text, catalog), fetch, Env())
        assert result.error is None
        rates[name] = result.probes.get("all_trigger", {}).get("acc")
    assert rates["clean"] is None
    assert rates["dirty"] > 0.6
    assert rates["clipped"] < 0.25
