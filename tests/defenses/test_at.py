"""Adversarial training against the worst case of a linear model."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from raygrid.architectures import ARCHITECTURES
from raygrid.core.spec import parse_chain
from raygrid.defenses import DEFENSES
from raygrid.defenses.at import AdversarialTraining
from raygrid.defenses.chain import Chain
from tests.conftest import toy
from tests.defenses.toys import batch, rng, session


class Linear(nn.Module):
    """A linear classifier of pixels: the worst case in a ball has a closed form."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.1 * torch.randn(2, 3 * 64, generator=rng(7)))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T


class Witness(Linear):
    """Keeps what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.shown.append(x.detach().clone())
        return super().forward(x)


@pytest.mark.parametrize("settings", [{}, {"step": 0.1, "radius": 0.05}])
def test_pgd_starts_from_gaussian_noise_and_takes_sign_steps(settings: dict[str, float]) -> None:
    """The start may lie outside the ball and outside [0, 1]; what follows may not."""
    at, model = AdversarialTraining(steps=3, **settings), Witness()
    x = torch.rand(16, 3, 8, 8, generator=rng())
    y = torch.arange(16) % 2
    found = at.perturb(model, x, y, rng(1))
    start = x + at.step * torch.randn(x.shape, generator=rng(1))
    assert torch.equal(model.shown[0], start)
    assert (start - x).abs().max() > 3 * at.step
    assert start.min() < 0
    uphill = (model.weight[1 - y] - model.weight[y]).detach().sign().view_as(x)
    for after in (*model.shown[1:], found):
        start = (start + at.step * uphill).clamp(x - at.radius, x + at.radius).clamp(0, 1)
        assert torch.equal(after, start)
    assert len(model.shown) == 3


def test_adversarial_images_alone_are_trained_on() -> None:
    """Loss, logits, gradients and batch statistics are those of the adversarial batch."""
    x, y = batch(32)
    hard, at = y.argmax(1), AdversarialTraining(steps=2)
    trained, expected, plain = (
        ARCHITECTURES.make("small_cnn").build(10, 32, 0).train() for _ in range(3)
    )
    loss, logits = at.loss(trained, x, hard, rng(3))
    scores = expected(at.perturb(expected, x, hard, rng(3)))
    assert torch.equal(logits, scores)
    assert torch.equal(loss, nn.functional.cross_entropy(scores, hard))
    assert not torch.equal(scores, plain(x))
    changed = []
    for (name, one), two, other in zip(
        trained.named_buffers(), expected.buffers(), plain.buffers(), strict=True
    ):
        assert torch.equal(one, two), name
        changed.append(not torch.equal(one, other))
    assert any(changed), "clean images have the same statistics, and the test says nothing"
    loss.backward()
    nn.functional.cross_entropy(scores, hard).backward()
    for one, two in zip(trained.parameters(), expected.parameters(), strict=True):
        assert one.grad is not None
        assert two.grad is not None
        assert torch.equal(one.grad, two.grad)


def test_pgd_finds_the_worst_case_of_a_linear_model() -> None:
    x = torch.rand(16, 3, 8, 8, generator=rng())
    y = torch.arange(16) % 2
    model = Linear()
    found = AdversarialTraining().perturb(model, x, y, rng(1))
    uphill = (model.weight[1 - y] - model.weight[y]).detach().sign().view_as(x)
    assert torch.allclose(found, (x + 8 / 255 * uphill).clamp(0, 1), atol=1e-6)


@pytest.mark.parametrize("settings", ["", "(step=1.6/255)", "(steps=5)", "(radius=0.031)"])
def test_pgd_stays_in_its_ball_and_leaves_the_model_alone(settings: str) -> None:
    at = DEFENSES.make(f"at{settings}")
    assert isinstance(at, AdversarialTraining)
    x, y = batch(32)
    network = ARCHITECTURES.make("small_cnn").build(10, 32, 0).train()
    network(x)  # buffers away from their start
    network.head.bias.requires_grad_(False)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    moved = at.perturb(network, x, y, rng())
    assert (moved - x).abs().max() <= at.radius + 1e-6
    assert moved.min() >= 0
    assert moved.max() <= 1
    assert not moved.requires_grad
    assert network.training
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
    unfrozen = [n for n, p in network.named_parameters() if not p.requires_grad]
    assert unfrozen == ["head.bias"]
    network.eval()
    loss = nn.functional.cross_entropy
    assert loss(network(moved), y) > loss(network(x), y)


def as_the_code_has_it(model: Witness, x: Tensor, y: Tensor, noise: Tensor, at: Any) -> Tensor:
    """The L2 steps of lafeat/apbench@9a6fb91 (madrys.py), image by image, in float64."""
    moved = []
    for image, label, drawn in zip(x.double(), y, noise.double(), strict=True):
        uphill = (model.weight[1 - label] - model.weight[label]).detach().double().view_as(image)
        here = image + at.step * drawn / drawn.norm()
        for _ in range(at.steps):
            change = here + at.step * uphill / uphill.norm() - image
            here = (image + change * min(1.0, at.radius / float(change.norm()))).clamp(0, 1)
        moved.append(here)
    return torch.stack(moved)


@pytest.mark.parametrize("settings", ["", ",radius=0.5,step=0.1", ",radius=2,step=0.7,steps=3"])
def test_l2_steps_are_those_of_the_benchmark(settings: str) -> None:
    """For a linear model the gradient's direction is known: away from the own class's weights."""
    at, model = DEFENSES.make(f"at(norm=l2{settings})"), Witness()
    assert isinstance(at, AdversarialTraining)
    x = torch.rand(16, 3, 8, 8, generator=rng())
    y = torch.arange(16) % 2
    found = at.perturb(model, x, y, rng(1))
    noise = torch.randn(x.shape, generator=rng(1))
    start = (model.shown[0] - x).flatten(1)
    assert torch.allclose(start.norm(dim=1), torch.full((16,), at.step), rtol=1e-4)
    wanted = as_the_code_has_it(model, x, y, noise, at)
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=2e-6)
    lengths = (found - x).flatten(1).norm(dim=1)
    assert lengths.max() <= at.radius * (1 + 1e-5)
    assert lengths.min() > 0.5 * at.radius, "the ball is used"


def test_the_norm_changes_the_key_of_no_earlier_trial() -> None:
    plain, same, other = (DEFENSES.make(f"at{n}") for n in ("", "(norm=linf)", "(norm=l2)"))
    assert set(plain.resolved()) == {"id", "version", "radius", "steps", "step"}
    assert same.resolved() == plain.resolved()
    assert other.resolved() == {**plain.resolved(), "norm": "l2"}


def test_adversarial_training_with_mixed_labels() -> None:
    run = session(Chain.make(parse_chain("mixup+at(steps=2)")), toy(32))
    assert math.isfinite(run.epoch(0)["train_loss"])
