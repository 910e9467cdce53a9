"""PGD, MI-FGSM and HYPO against steps worked out by hand."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from raygrid.attacks import ATTACKS
from raygrid.attacks.base import AttackContext
from raygrid.attacks.common.surrogate_training import accuracy
from raygrid.attacks.mifgsm import Classic, MomPgd
from raygrid.core.errors import SpecError
from raygrid.core.images import Images
from raygrid.core.seeds import Stream
from tests.attacks.test_attacks import craft_for
from tests.attacks.toys import WORLD, make, victim


def test_ten_steps_of_pgd_stay_near_their_start_and_many_reach_the_faces(images: Images) -> None:
    few = make("pgd", augmentation="none", start="zero", surrogate_epochs=1, batch_size=64)
    many = dataclasses.replace(few, steps=40)  # type: ignore[type-var]
    context = craft_for(few, images)
    middle = (images.pixels > 8) & (images.pixels < 247)
    small, large = (
        (a.pixels(images, context).short() - images.pixels.short())[middle].abs().float()
        for a in (few, many)
    )
    assert small.max() <= 4  # 10 steps of 0.05 budgets
    assert large.mean() > 6.5


def test_momentum_is_the_running_sum_of_scaled_gradients() -> None:
    first = torch.tensor([[1.0, -3.0], [2e-6, 6e-6]]).view(2, 1, 1, 2)
    second = torch.tensor([[-1.0, 1.0], [-1e3, 1e3]]).view(2, 1, 1, 2)
    direction = Classic(0.5)
    assert direction(first.clone()).flatten().tolist() == [1, -1, 1, 1]
    # Scaled: (0.5, -1.5) then (-1, 1): 0.25 - 1 and -0.75 + 1; (0.5, 1.5): 0.25 - 1 and 0.75 + 1.
    assert direction(second.clone()).flatten().tolist() == [-1, 1, -1, 1]


def test_mompgd_sums_signs_and_slows_down() -> None:
    direction = MomPgd(0.9, [1, 2], torch.tensor(1.0))
    gradient = torch.tensor([2.0, -5.0]).view(1, 1, 1, 2)
    torch.testing.assert_close(direction(gradient.clone()).flatten(), torch.tensor([1.0, -1.0]))
    torch.testing.assert_close(direction(gradient.clone()).flatten(), torch.tensor([0.19, -0.19]))
    torch.testing.assert_close(
        direction(-gradient.clone()).flatten(), torch.tensor([0.00710, -0.00710])
    )


def test_hypo_may_share_the_surrogate_of_tap() -> None:
    tap, hypo, own = (
        ATTACKS.make(part).needs()[0] for part in ("tap", "hypo(surrogate_recipe=tap40)", "hypo")
    )
    assert hypo.resolved() == tap.resolved()
    assert (own.recipe.epochs, own.recipe.milestones) == (150, (100, 125))
    assert ATTACKS.make("hypo(surrogate_epochs=30)").needs()[0].recipe.epochs == 30
    for part in ("hypo(surrogate_epochs=0)", "tap(surrogate_epochs=0)"):
        with pytest.raises(SpecError, match="surrogate_epochs is 0, allowed are whole numbers"):
            ATTACKS.make(part)


def test_mifgsm_takes_its_budget_in_all_steps(images: Images) -> None:
    attack = make("mifgsm", steps=4, surrogate_epochs=1, momentum=1e6)
    change = attack.pixels(images, craft_for(attack, images)).short() - images.pixels.short()
    middle = (images.pixels > 8) & (images.pixels < 247)
    # With all weight on the first gradient every step goes the same way: 4 steps of 2 levels.
    assert float((change[middle].abs() == 8).float().mean()) > 0.99


@pytest.mark.parametrize("budget", ["16/255", "l2:1.0"])
def test_hypo_makes_the_surrogate_certain(budget: str) -> None:
    network = victim(WORLD, 3)
    attack = ATTACKS.make(f"hypo(budget={budget}, surrogate=small_cnn, steps=15, step=0.2)")
    context = AttackContext(Stream("poison"), surrogates={"delusive150": network})
    poisoned = WORLD.with_pixels(attack.pixels(WORLD, context))
    with torch.no_grad():
        before, after = (
            nn.functional.cross_entropy(network(i.floats()), WORLD.labels, reduction="none")
            for i in (WORLD, poisoned)
        )
    assert accuracy(network, WORLD) < 0.98
    assert accuracy(network, poisoned) >= 0.98
    assert float((after <= before).float().mean()) >= 0.99


@pytest.mark.parametrize("budget", ["8/255", "l2:0.5"])
def test_hypo_in_bf16_is_as_certain_as_in_float32(budget: str) -> None:
    """The certainty that it is after, of the images as they are stored and in float32."""
    network = victim(WORLD, 3)
    context = AttackContext(Stream("poison"), surrogates={"delusive150": network})
    gained, pixels = [], []
    for precision in ("fp32", "bf16"):
        how = f"surrogate=small_cnn, steps=30, precision={precision}"
        pixels.append(ATTACKS.make(f"hypo(budget={budget}, {how})").pixels(WORLD, context))
        with torch.no_grad():
            before, after = (
                float(nn.functional.cross_entropy(network(i.floats()), WORLD.labels))
                for i in (WORLD, WORLD.with_pixels(pixels[-1]))
            )
        gained.append(1 - after / before)
    assert gained[0] > 0.5
    assert gained[1] >= 0.99 * gained[0]
    apart = (pixels[0].short() - pixels[1].short()).abs().float().mean()
    assert (
        0
        < float(apart)
        < 0.5 * float((pixels[0].short() - WORLD.pixels.short()).abs().float().mean())
    )
