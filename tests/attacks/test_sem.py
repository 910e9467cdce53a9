"""SEM beside the rule of its code: liuyixin-louis/Stable-Unlearnable-Example@6e5aebd."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from raygrid.architectures import ARCHITECTURES
from raygrid.attacks import ATTACKS
from raygrid.attacks.base import AttackContext
from raygrid.attacks.rem import Rem
from raygrid.attacks.sem import Sem
from raygrid.core import draws
from raygrid.core.images import Images
from raygrid.core.seeds import Stream
from raygrid.nn.networks import freeze
from raygrid.nn.steps import Batch
from tests.conftest import toy
from tests.victims import photo_digits, reference_accuracy, victim_accuracy

EPS = 8 / 255


def batch_of(images: Images) -> Batch:
    rng = torch.Generator().manual_seed(3)
    rows = torch.arange(len(images))
    return Batch(images.floats(rows), images.labels, rows, rng, 0)


def as_the_code(network: nn.Module, x: Tensor, y: Tensor, copies: int) -> Tensor:
    """attacks/stable_workers.py: copies one after the other, their gradients added up.

    Draws in the order in which they are taken here: the start, then a step's all at once.
    """
    rng, cpu = torch.Generator().manual_seed(3), torch.device("cpu")
    noise = (draws.rand(x.shape, rng, cpu) * 2 - 1) * EPS
    for _ in range(10):
        moves = (draws.rand((copies * len(x), *x.shape[1:]), rng, cpu) * 2 - 1) * EPS / 2
        total = torch.zeros_like(noise)
        for move in moves.split(len(x)):
            noise.requires_grad_()
            seen = (x + noise).clamp(0, 1)
            around = (seen.detach() + move).clamp(0, 1).requires_grad_()
            loss = nn.functional.cross_entropy(network(around), y)
            (gradient,) = torch.autograd.grad(loss, around)
            total += torch.autograd.grad((seen * gradient).sum(), noise)[0]
            noise = noise.detach()
        noise = (noise - 1.6 / 255 * total.sign()).clamp(-EPS, EPS)
    return noise


def test_the_noise_of_a_batch_is_that_of_the_code_for_the_same_draws() -> None:
    images = toy(16)
    network = freeze(ARCHITECTURES.make("small_cnn").build(4, 16, 3))
    attack = ATTACKS.make("sem(augmentation=none, copies=3, surrogate=small_cnn)")
    assert isinstance(attack, Sem)
    found = attack.noise(network, batch_of(images))
    expected = as_the_code(network, images.floats(), images.labels, 3)
    assert float((found - expected).abs().gt(1e-6).float().mean()) < 1e-3


def test_the_network_still_trains_against_the_adversary_of_rem(images: Images) -> None:
    network = freeze(ARCHITECTURES.make("small_cnn").build(4, 16, 3))
    text = "{}(adv_steps=2, augmentation=none, surrogate=small_cnn)"
    shown = []
    for name in ("sem", "rem"):
        attack = ATTACKS.make(text.format(name))
        assert isinstance(attack, Rem)
        shown.append(attack.shown(network, batch_of(images), torch.zeros(64, 3, 16, 16)))
    assert torch.equal(*shown)


def test_noise_costs_a_tenth_of_what_rem_pays_for_it() -> None:
    sem, rem = ATTACKS.make("sem"), ATTACKS.make("rem")
    assert isinstance(sem, Sem)
    assert isinstance(rem, Rem)
    assert sem.noise_passes == 100
    assert rem.noise_passes == 11 * sem.noise_passes
    assert sem.passes(50_000) == pytest.approx(12.8 * (100 + 20 + 3) + 100)


@pytest.mark.slow
def test_sem_bites() -> None:
    """Measured once, seed 0, quick settings at twice the budget: 0.11, noise of that size 0.72."""
    train = photo_digits().train
    quick = ", ".join(f"{k}={v}" for k, v in Sem.quick.items())
    attack = ATTACKS.make(f"sem({quick}, budget=2x)")
    pixels = attack.poison(train, AttackContext(Stream("poison", ("digits", "sem", 0)))).pixels
    reached = victim_accuracy(train.with_pixels(pixels))
    assert reached < reference_accuracy("noise(budget=16/255)") - 0.25
