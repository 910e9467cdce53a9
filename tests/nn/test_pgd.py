"""Projected gradient descent: how networks are held still, and climbing as descent turned round."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from raygrid.architectures import ARCHITECTURES
from raygrid.core.seeds import Stream
from raygrid.nn.pgd import Ball, Descent, L2Ball, cross_entropy, frozen, negative
from tests.conftest import toy


def test_frozen_restores_each_module_and_parameter() -> None:
    """A frozen part of a network in training stays frozen afterwards."""
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(), nn.Linear(3, 2))
    network.train()
    network[1].eval()
    network[0].requires_grad_(False)

    def fails() -> None:
        with frozen(network):
            assert not any(module.training for module in network.modules())
            assert not any(parameter.requires_grad for parameter in network.parameters())
            raise RuntimeError("on the way")

    with pytest.raises(RuntimeError, match="on the way"):
        fails()
    assert [module.training for module in network] == [True, False, True, True]
    assert network.training
    flags = [parameter.requires_grad for parameter in network.parameters()]
    assert flags == [False, False, True, True, True, True]


def test_climbing_a_loss_is_descending_its_negative() -> None:
    images = toy(16, 16)
    network = ARCHITECTURES.make("small_cnn").build(4, 16, 0)
    x, labels = images.floats(), images.labels
    ball = Ball(radius=8 / 255, steps=4, step=3 / 255)
    start = ball.inside(x, Stream("start").generator())

    def loss(moved: Tensor) -> Tensor:
        return nn.functional.cross_entropy(network(moved), labels, reduction="sum")

    with frozen(network):
        climbed = ball.climb(loss, x, start)
        descent = Descent(ball.radius, ball.step, ball.steps)
        delta, _ = descent(x, start, negative(cross_entropy(network, labels)))
        assert torch.allclose(climbed, (x + delta).clamp(0, 1), atol=1e-6)
        assert loss(climbed) > loss(start) > loss(x) - 1e-3
    assert (climbed - x).abs().max() <= ball.radius + 1e-6
    assert climbed.min() >= 0
    assert climbed.max() <= 1


def test_starts_in_the_l2_ball_are_uniform_in_its_volume() -> None:
    """Of d values, half of the starts lie beyond the radius times 2^(-1/d)."""
    x = torch.full((4000, 1, 1, 2), 0.5)
    away = L2Ball(0.25, 0, 0.1).inside(x, Stream("start").generator()) - x
    lengths = away.flatten(1).norm(dim=1)
    assert lengths.max() <= 0.25 + 1e-6
    assert (lengths > 0.25 / 2**0.5).float().mean() == pytest.approx(0.5, abs=0.03)
    assert away.flatten(1).mean(0).abs().max() < 0.01
