"""Noise that is made through a defense: grayscale, JPEG, UEraser."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from raygrid.attacks.common.adaptive import through_erasing, through_jpeg
from raygrid.core.images import Images
from raygrid.nn.augment.jpeg import recode
from raygrid.nn.augment.trivial import POLICIES, Ranged, enhance_contrast, posterize
from tests.attacks.test_attacks import Killed, Notebook, craft_for
from tests.attacks.toys import make, victim


@pytest.mark.parametrize("name", ["em", "em_remrepo", "rem", "rem_apb"])
def test_noise_against_grayscale_is_achromatic(name: str, images: Images) -> None:
    steps = {"train_steps": 6} if name in ("rem", "em_remrepo") else {"max_rounds": 2}
    extra = {"copies": 1, "adv_steps": 1, "adv_radius": 0.0} if name == "rem" else {}
    extra |= {"augmentation": "none"} if "train_steps" in steps else {}
    attack = make(name, against="grayscale", batch_size=32, steps=4, step=1.0, **steps, **extra)
    delta = attack.propose(images, craft_for(attack, images))
    middle = ((images.pixels > 8) & (images.pixels < 247)).all(1)
    one, two, three = (delta[:, c][middle] for c in range(3))
    same = ((one - two).abs() < 1e-6) & ((two - three).abs() < 1e-6)
    assert float(same.float().mean()) > 0.95
    plain = make(name, batch_size=32, steps=4, step=1.0, **steps, **extra)
    colored = plain.propose(images, craft_for(plain, images))
    assert ((colored[:, 0] - colored[:, 1]).abs() < 1e-6).float().mean() < 0.9


def test_the_gradient_passes_straight_through_jpeg(images: Images) -> None:
    network = victim(images, 1)
    x = images.floats()[:8].requires_grad_()
    seen = through_jpeg(x, torch.Generator().manual_seed(3))
    quality = int(torch.randint(10, 30, (), generator=torch.Generator().manual_seed(3)))
    decoded = recode(images.pixels[:8], quality)
    torch.testing.assert_close(seen.detach() * 255, decoded.float(), atol=1e-4, rtol=0)
    assert not torch.equal(decoded, images.pixels[:8])
    labels = images.labels[:8]
    nn.functional.cross_entropy(network(seen), labels, reduction="sum").backward()
    z = (decoded.float() / 255).requires_grad_()
    nn.functional.cross_entropy(network(z), labels, reduction="sum").backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, z.grad, atol=1e-5, rtol=1e-4)


def test_noise_against_jpeg_goes_on_after_a_kill(images: Images) -> None:
    attack = make("em", against="jpeg", batch_size=32, steps=1, max_rounds=3, stop_error=0.0)
    context = craft_for(attack, images, progress=(whole := Notebook()))
    pixels = attack.pixels(images, context)
    again = dataclasses.replace(context, progress=Notebook(1))
    with pytest.raises(Killed):
        attack.pixels(images, again)
    assert whole.saves == 3
    assert torch.equal(attack.pixels(images, again), pixels)


def test_the_gradient_passes_through_every_step_of_ueraser(
    images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Levels have no gradient: that of the identity; other steps keep their own."""
    way = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    bits = Ranged(posterize, 3, 3)
    half = Ranged(enhance_contrast, 0.5, 0.5)
    for steps, slope in (((bits,), 1.0), ((half,), 0.5), ((bits, half, half), 0.25)):
        monkeypatch.setattr("raygrid.nn.augment.ueraser._steps", lambda _, steps=steps: steps)
        x = images.floats()[:8].mul(0.5).add(0.2).requires_grad_()
        seen = through_erasing(x, torch.Generator())
        (gradient,) = torch.autograd.grad((seen * way).sum(), x)
        torch.testing.assert_close(gradient, slope * way)
        expected = x.detach()
        for step in steps:
            expected = step(expected, torch.Generator())
        assert torch.equal(seen.detach(), expected)


@pytest.mark.parametrize("operation", range(12))
def test_no_operation_of_trivial_augment_stops_the_gradient(
    images: Images, operation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = POLICIES["trivial"][operation]
    monkeypatch.setattr("raygrid.nn.augment.ueraser._steps", lambda _: (step,))
    x = images.floats()[:4].requires_grad_()
    seen = through_erasing(x, torch.Generator().manual_seed(operation))
    way = torch.randn(seen.shape, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad((seen * way).sum(), x)
    assert gradient.isfinite().all()
    assert gradient.flatten(1).any(1).float().mean() >= 0.5


def test_noise_against_ueraser_is_made_through_it(images: Images) -> None:
    settings = {"batch_size": 32, "steps": 2, "max_rounds": 2, "stop_error": 0.0}
    attack = make("em_apb", against="ueraser", **settings)
    whole = attack.pixels(images, craft_for(attack, images, progress=(book := Notebook())))
    plain = make("em_apb", **settings)
    assert not torch.equal(whole, plain.pixels(images, craft_for(plain, images)))
    again = craft_for(attack, images, progress=Notebook(1))
    with pytest.raises(Killed):
        attack.pixels(images, again)
    assert torch.equal(attack.pixels(images, again), whole)
    assert book.saves == 2
