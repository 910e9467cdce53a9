"""What a poison does to its victim, beyond less accuracy: budgets, shifted labels, shortcuts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from raygrid.attacks import ATTACKS
from raygrid.attacks.base import Attack, AttackContext
from raygrid.attacks.common.surrogate_training import accuracy
from raygrid.core.budget import Budget
from raygrid.core.images import Images
from raygrid.core.seeds import Stream
from tests.attacks.test_attacks import craft_for
from tests.attacks.test_toy_bite import BITES
from tests.attacks.toys import TEST, WORLD, make, victim
from tests.conftest import toy
from tests.separability import held_out_accuracy

MORE: Mapping[str, Mapping[str, Any]] = {
    "hypo": {"surrogate_epochs": 4, "steps": 15, "step": 0.2},
    "sep": {"surrogate_epochs": 6, "checkpoints": 3, "steps": 8, "inner_steps": 3},
    "ntga": {"block": 256, "time": 4000.0},
    "regions": {},
    "noise": {},
    "lsp": {},
    "ar": {},
    "ops": {},
    "low_frequency": {"n": 4},
}
QUICK = ("regions", "tap")
SETTINGS = {**{name: settings for name, (settings, _) in BITES.items()}, **MORE}
ALL = [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in SETTINGS]


def attacked(name: str, budget: Budget | None = None, images: Images = WORLD) -> Images:
    settings = dict(SETTINGS[name])
    if budget is not None:
        settings["budget"] = budget
    attack: Attack = (
        make(name, **settings)
        if name in BITES or name in ("hypo", "sep")
        else ATTACKS[name](**settings)
    )
    return images.with_pixels(attack.pixels(images, craft_for(attack, images)))


@pytest.mark.parametrize("name", ALL)
def test_four_times_the_budget_never_protects_less(name: str) -> None:
    default = ATTACKS[name].__dataclass_fields__["budget"].default
    larger = Budget(default.norm, 4 * default.value)
    usual, more = (accuracy(victim(attacked(name, budget)), TEST) for budget in (default, larger))
    assert more <= usual + 0.03


def shifted(network: nn.Module, images: Images) -> float:
    """How often the class before the true one is predicted."""
    with torch.no_grad():
        predicted = network(images.floats()).argmax(1)
    wanted = (images.labels - 1) % images.classes
    return float((predicted == wanted).float().mean())


@pytest.mark.parametrize(
    "name",
    ["tap", *(pytest.param(n, marks=pytest.mark.slow) for n in ("pgd", "mifgsm", "tap_remrepo"))],
)
def test_victims_of_targeted_noise_predict_the_class_before(name: str) -> None:
    """Images of class c carry features of c + 1 and the label c.

    The toy patterns do not survive shifts and crops, so neither network nor noise sees any.
    """
    settings = {"steps": 15, "step": 0.15, "augmentation": "none"}
    attack = make(name, budget=Budget("linf", 24 / 255), **settings)
    known = {recipe.name: clean_network() for recipe in attack.needs()}
    context = AttackContext(Stream("poison", ("toy", name)), surrogates=known)
    network = victim(WORLD.with_pixels(attack.pixels(WORLD, context)))
    assert shifted(clean_network(), TEST) < 1 / WORLD.classes
    assert shifted(network, TEST) > 1.4 / WORLD.classes


@cache
def clean_network() -> nn.Module:
    return victim(WORLD)


@pytest.fixture(scope="module")
def many() -> Images:
    return toy(1200)


def separable(images: Images, pixels: Tensor) -> float:
    return held_out_accuracy(images.pixels, pixels, images.labels)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["em", "em_apb", "rem_apb", "hypo", "tap", "mifgsm"])
def test_gradient_noise_is_linearly_separable_on_held_out_images(name: str, many: Images) -> None:
    """With fewer images than values the fitted half says nothing, so the other half is scored.

    Independent noise of the same size is at chance there.
    """
    assert separable(many, attacked(name, images=many).pixels) >= 0.9


@pytest.mark.slow
def test_the_noise_of_an_ensemble_is_separable_too(many: Images) -> None:
    attack = make("sep", checkpoints=3, surrogate_epochs=3, steps=8, inner_steps=3)
    members = nn.ModuleList([victim(many, epochs) for epochs in (2, 4, 6)])
    context = AttackContext(Stream("poison", ("toy", "sep")), surrogates={"sep120": members})
    assert separable(many, attack.pixels(many, context)) >= 0.9


@pytest.mark.slow
def test_independent_noise_is_not_separable(many: Images) -> None:
    assert separable(many, attacked("noise", images=many).pixels) < 0.4
