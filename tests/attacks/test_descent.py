"""Signed and l2 descent on images, batches of a generation, endless batches of a training."""

from __future__ import annotations

import dataclasses
import itertools

import torch
from torch import Tensor, nn

from raygrid.architectures import ARCHITECTURES
from raygrid.attacks.common.gradient import in_batches
from raygrid.core.images import Images
from raygrid.core.seeds import Stream
from raygrid.nn.pgd import Descent, L2Descent, cross_entropy, frozen, unit
from raygrid.nn.recipes import Recipe
from raygrid.nn.steps import classify_step
from raygrid.nn.trainer import Trainer
from tests.attacks.test_attacks import craft_for
from tests.attacks.toys import linear, make


def test_descent_steps_against_the_sign_and_stays_in_ball_and_box() -> None:
    x = torch.tensor([0.02, 0.5, 0.5, 0.99]).view(1, 1, 2, 2)
    weights = torch.tensor([1.0, -3.0, 0.0, -1e-20]).view(1, 1, 2, 2)
    seen: list[Tensor] = []

    def objective(z: Tensor, step: int) -> Tensor:
        seen.append(z.detach().clone())
        return linear(weights)(z, step)

    delta, losses = Descent(0.1, 0.04, 4)(x, x, objective)
    # After three steps: 0.02 has met 0, 0.5 + 0.12 has met the ball, a gradient of 0 moves nothing.
    expected = torch.tensor([0.0, 0.6, 0.5, 1.0]).view_as(x)
    torch.testing.assert_close(seen[3], expected)
    torch.testing.assert_close(delta.flatten(), torch.tensor([-0.06, 0.1, 0.0, 0.05]))
    torch.testing.assert_close(losses, (expected * weights).flatten(1).sum(1))
    free, _ = Descent(0.1, 0.04, 4, box=False)(x, x, linear(weights))
    torch.testing.assert_close(free.flatten(), torch.tensor([-0.1, 0.1, 0.0, 0.1]))


def test_noise_is_derived_from_the_clipped_image() -> None:
    x = torch.full((1, 1, 1, 1), 0.98)
    signs = [-1.0, -1.0, 1.0]

    def objective(z: Tensor, step: int) -> Tensor:
        return signs[step] * z.flatten(1).sum(1)

    # 0.98 -> 1.02, clipped to 1 -> 1.04, clipped to 1 -> 0.96. Noise carried along: +0.04.
    delta, _ = Descent(0.1, 0.04, 3)(x, x, objective)
    torch.testing.assert_close(delta.flatten(), torch.tensor([-0.02]))


def test_a_frozen_network_treats_images_alone_and_comes_back_as_it_was(images: Images) -> None:
    network = ARCHITECTURES.make("small_cnn").build(4, 16, 0)
    network.train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    network.head.weight.requires_grad_(False)
    descent = Descent(0.05, 0.01, 4)
    x = images.floats()
    with frozen(network):
        assert not network.training
        whole, _ = descent(x, x, cross_entropy(network, images.labels))
        parts = [
            descent(x[rows], x[rows], cross_entropy(network, images.labels[rows]))[0]
            for rows in torch.arange(64).split(16)
        ]
    assert (torch.cat(parts) != whole).float().mean() < 0.005
    assert network.training
    assert not network.head.weight.requires_grad
    assert network.head.bias.requires_grad
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_in_batches_fills_up_the_last_batch(images: Images) -> None:
    shapes, rows_seen = set(), []

    def change(x: Tensor, rows: Tensor) -> Tensor:
        shapes.add(tuple(x.shape))
        rows_seen.append(rows)
        return (rows / 255).view(-1, 1, 1, 1).expand_as(x).clone()

    context = craft_for(make("tap", surrogate_epochs=1), images, units=range(3, 29))
    pixels = in_batches(images, context, 10, change)
    assert shapes == {(10, 3, 16, 16)}
    assert rows_seen[2].tolist() == [23, 24, 25, 26, 27, 28, 28, 28, 28, 28]
    added = torch.arange(3, 29).view(-1, 1, 1, 1)
    assert torch.equal(pixels, (images.pixels[3:29].long() + added).clamp(max=255).byte())


def test_endless_batches_go_on_where_they_were_cut(images: Images) -> None:
    def trainer() -> Trainer:
        module = nn.Linear(1, 1)
        recipe = Recipe(epochs=1, batch_size=24, drop_last=True)
        return Trainer(
            module, lambda b: classify_step(module, b, "fp32"), images, recipe, Stream("t")
        )

    def drawn(first: int, count: int) -> list[tuple[tuple[int, ...], float]]:
        batches = itertools.islice(trainer().endless(first), count)
        return [(tuple(b.index.tolist()), float(torch.rand(1, generator=b.rng))) for b in batches]

    whole = drawn(0, 7)
    assert drawn(3, 4) == whole[3:]
    assert len({rows for rows, _ in whole}) == len({draw for _, draw in whole}) == 7
    assert all(len(rows) == 24 for rows, _ in whole)


def test_l2_steps_have_unit_length_and_stay_on_the_sphere() -> None:
    x = torch.full((1, 1, 1, 2), 0.5)
    weights = torch.tensor([3.0, -4.0]).view(1, 1, 1, 2)
    descent = L2Descent(0.25, 0.1, 1)
    delta, _ = descent(x, x, linear(weights), unit)
    torch.testing.assert_close(delta.flatten(), torch.tensor([-0.06, 0.08]))
    far, _ = dataclasses.replace(descent, steps=9)(x, x, linear(weights), unit)
    torch.testing.assert_close(far.flatten(), torch.tensor([-0.15, 0.20]))
