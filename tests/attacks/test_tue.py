"""TUE: class separability by its formula, and noise of classes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from raygrid.attacks.base import AttackContext
from raygrid.attacks.common.noise import SampleNoise, uniform_start
from raygrid.attacks.common.rounds import alternate
from raygrid.attacks.tue import Tue, separability
from raygrid.core.images import Images
from raygrid.core.seeds import Stream
from tests.attacks.views import RADIUS, changed, rng, scenes, state


def noise_of_classes(n: int = 24, seed: int = 0) -> tuple[Tensor, Tensor]:
    labels = torch.arange(n) % 3
    centers = torch.randn(3, 2, 4, 4, generator=rng("centers", seed))
    return centers[labels] + torch.randn(n, 2, 4, 4, generator=rng("spread", seed)), labels


def test_separability_is_the_formula() -> None:
    delta, labels = noise_of_classes()
    flat = delta.flatten(1)
    centers = [flat[labels == k].mean(0) for k in range(3)]
    spread = [(flat[labels == k] - centers[k]).norm(dim=1).mean() for k in range(3)]
    total = 0.0
    for k in range(3):
        for other in {0, 1, 2} - {k}:
            apart = (centers[k] - centers[other]).norm()
            total += float((spread[k] + spread[other] + 1e-5) / (apart + 1e-5)) / 6
    for detach in (True, False):
        assert float(separability(delta, labels, detach)) == pytest.approx(total, rel=1e-5)
    order = torch.randperm(24, generator=rng("order"))
    moved = separability(delta[order] + 0.7, labels[order], True)
    assert float(moved) == pytest.approx(total, rel=1e-4)


def test_separability_of_one_class_is_zero_without_gradient() -> None:
    delta = torch.randn(5, 3, 4, 4, generator=rng("one")).requires_grad_()
    value = separability(delta, torch.zeros(5, dtype=torch.int64), True)
    value.backward()
    assert float(value.detach()) == 0
    assert delta.grad is not None
    assert not delta.grad.any()


def test_with_detached_spread_class_mates_have_one_gradient() -> None:
    delta, labels = noise_of_classes()
    slopes = {}
    for detach in (True, False):
        leaf = delta.clone().requires_grad_()
        (slopes[detach],) = torch.autograd.grad(separability(leaf, labels, detach), leaf)
    for label in range(3):
        mates = slopes[True][labels == label]
        torch.testing.assert_close(mates, mates[:1].expand_as(mates))
        assert not torch.allclose(
            slopes[False][labels == label][0], slopes[False][labels == label][1]
        )


def test_identical_noise_has_finite_gradients() -> None:
    delta = torch.zeros(6, 3, 4, 4, requires_grad=True)
    for detach in (True, False):
        (slope,) = torch.autograd.grad(separability(delta, torch.arange(6) % 2, detach), delta)
        assert bool(torch.isfinite(slope).all())


def test_tue_as_published_makes_noise_of_classes(images: Images) -> None:
    attack = Tue(batch_size=64, epochs=3, train_batches=1)
    context = AttackContext(Stream("poison"))
    delta = attack.propose(images, context)
    x = images.floats()
    start = (x + uniform_start(len(images), images, RADIUS, context)).clamp(0, 1) - x
    first, last = (float(separability(d, images.labels, True)) for d in (start, delta))
    assert last < 0.2 * first
    means = torch.stack([delta[images.labels == k].mean(0) for k in range(4)])
    same_sign = delta.sign() == means[images.labels].sign()
    assert float(same_sign.float().mean()) > 0.9


def test_joint_tue_lowers_separability_and_trains_a_network() -> None:
    images = scenes(64)
    attack = Tue(surrogate="small_cnn", batch_size=32, epochs=4, train_batches=2, steps=5, ssl=1.0)
    context = AttackContext(Stream("poison"))
    noise = SampleNoise(images, uniform_start(64, images, RADIUS, context))
    start = float(separability(noise.values, images.labels, True))
    student = attack.student(noise, context)
    before = state(student.module)
    delta = alternate(noise, [student], 4, 32, context)
    assert changed(before, student.module)
    assert float(separability(delta, images.labels, True)) < 0.9 * start
