"""Attacks in the features of an extractor beside aks2203/poisoning-benchmark@97a67ae, to the end.

From the bases to the poisons, before they are stored: that code truncates (torchvision's
ToPILImage), this one rounds.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from raygrid.architectures.networks.network import Network
from raygrid.attacks import ATTACKS
from raygrid.attacks.base import AttackContext
from raygrid.attacks.common.targeted import ExtractorAttack
from raygrid.attacks.htbd import sources
from raygrid.core.seeds import Stream
from tests.attacks.test_originals import MEAN, SD, surrogate
from tests.attacks.test_originals_targeted import scene
from tests.conftest import toy

EPS = 8 / 255


def crafted(part: str) -> tuple[Tensor, Network]:
    """The poisons of an attack in [0, 1], float32 (6, 3, 16, 16), and its extractor."""
    attack = ATTACKS.make(part)
    assert isinstance(attack, ExtractorAttack)
    network = surrogate(toy(160))
    known = AttackContext(Stream("originals"), surrogates={"small_cnn": network}, scene=scene())
    return bases() + attack.propose(scene().train, known), network


def bases() -> Tensor:
    return scene().train.floats(scene().slots)


def target() -> Tensor:
    return scene().target.float() / 255


def assert_equal(ours: Tensor, theirs: Tensor, share: float) -> None:
    """To a tenth of a level but for a share of the values; and something was done."""
    off = (ours - theirs).abs() > 0.1 / 255
    assert float(off.float().mean()) < share
    assert float((theirs - bases()).abs().mean()) > 0.5 / 255


# poison_crafting/craft_poisons_fc.py


def collided(network: Network, base: Tensor, steps: int, step: float, l2: bool) -> Tensor:
    """One poison: a step is taken back, and the size falls for good, where the objective rose."""
    wanted = network.features(target()).detach()[0]
    x, last, beta = 0.3 * target()[0] + 0.7 * base, 1e9, 4.0
    for _ in range(steps):
        x = x.detach().requires_grad_()
        loss = (network.features(x[None])[0] - wanted).norm() ** 2
        (slope,) = torch.autograd.grad(loss, x)
        moved, value = x.detach() - step * slope, float(loss.detach())
        if l2:
            moved = ((moved + step * beta * base) / (1 + step * beta)).clamp(0, 1)
            value += beta * float((moved - base).norm() ** 2)
        else:
            moved = (base + (moved - base).clamp(-EPS, EPS)).clamp(0, 1)
        if value > last:
            step *= 0.2
            continue
        near = float((x.detach() - moved).norm() / x.detach().norm()) < 1e-5
        x, last = moved, value
        if near:
            break
    return x.detach()


def test_feature_collision_runs_as_it_was_released() -> None:
    ours, network = crafted("feature_collision(variant=released, surrogate=small_cnn, steps=20)")
    theirs = torch.stack([collided(network, base, 20, 0.001, False) for base in bases()])
    assert_equal(ours, theirs, 1e-3)


# poison_crafting/Bullseye/trainer.py (loss_from_center), ConvexPolytope/trainer.py (get_CP_loss)


def on_polytope(network: Network, loss: Callable[[Tensor], Tensor], steps: int) -> Tensor:
    """Adam on normalized pixels; after each step the perturbation into the ball, then the range."""
    mean, sd = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, SD))
    start = (bases() - mean) / sd
    z = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([z], lr=0.04, betas=(0.9, 0.999))
    for _ in range(steps):
        optimizer.zero_grad()
        loss(network.body(z)).backward()
        optimizer.step()
        with torch.no_grad():
            moved = ((z - start) * sd).clamp(-EPS, EPS)
            z.copy_(((bases() + moved).clamp(0, 1) - mean) / sd)
    return (z * sd + mean).detach()


def test_bullseye_polytope_is_that_of_the_benchmark() -> None:
    ours, network = crafted("bullseye_polytope(surrogate=small_cnn, steps=30)")
    center = network.features(target()).detach()[0]
    theirs = on_polytope(network, lambda own: (own.mean(0) - center).norm() / center.norm(), 30)
    assert_equal(ours, theirs, 0.01)


def simplex_of_the_code(features: Tensor, wanted: Tensor, start: Tensor) -> Tensor:
    """least_squares_simplex: steps of 2 / an estimate of the curvature, halved where it rose."""
    gram, mixed = features @ features.T, features @ wanted
    y = torch.randn(len(start), generator=torch.Generator().manual_seed(0))
    x, step = start, 2 / ((gram @ y).norm() / y.norm())

    def distance(weights: Tensor) -> float:
        return float((weights @ features - wanted).norm())

    for _ in range(10_000):
        moved = x - step * (gram @ x - mixed)
        if distance(moved) > distance(x):
            step = step / 2
            continue
        ordered = moved.sort(descending=True).values
        surplus = (ordered.cumsum(0) - 1) / torch.arange(1, len(moved) + 1)
        projected = (moved - surplus[ordered > surplus][-1]).clamp(min=0)
        if float((x - projected).norm() / x.norm().clamp(min=1e-8)) < 1e-6:
            break
        x = projected
    return x


@pytest.mark.slow
def test_convex_polytope_is_that_of_the_benchmark() -> None:
    ours, network = crafted("convex_polytope(surrogate=small_cnn, steps=12)")
    wanted = network.features(target()).detach()[0]
    weights = torch.full((6,), 1 / 6)

    def loss(own: Tensor) -> Tensor:
        nonlocal weights
        weights = simplex_of_the_code(own.detach(), wanted, weights)
        return 0.5 * (wanted - weights @ own).square().sum() / wanted.square().sum()

    assert_equal(ours, on_polytope(network, loss, 12), 0.02)


# poison_crafting/craft_poisons_htbd.py


def test_hidden_triggers_are_paired_as_they_were_released() -> None:
    """The nearest pair left, one after the other; chosen features overwrite the list in place."""
    steps = 25
    part = f"htbd(pairing=released, surrogate=small_cnn, steps={steps}, step=3.0, period=10"
    part += ", enough=1e-3)"
    ours, network = crafted(part)
    known = AttackContext(Stream("originals"), scene=scene())
    patched = scene().triggers["htbd"].apply(sources(scene(), 6, known)).float() / 255
    feat1, x, first = network.features(patched).detach().clone(), bases(), bases()
    for number in range(steps):
        x = x.detach().requires_grad_()
        own, before = network.features(x), feat1.clone()
        distances = torch.cdist(feat1, own.detach())
        for _ in range(len(own)):
            source, poison = divmod(int(distances.argmin()), len(own))
            feat1[poison] = before[source]
            distances[source, poison] = 1e5
        loss = (feat1 - own).norm() ** 2
        (slope,) = torch.autograd.grad(loss, x)
        moved = x.detach() - 3.0 * 0.95 ** (number // 10) * slope
        x = (first + (moved - first).clamp(-EPS, EPS)).clamp(0, 1)
        if float(loss.detach()) < 1e-3:
            break
    assert_equal(ours, x.detach(), 1e-3)
