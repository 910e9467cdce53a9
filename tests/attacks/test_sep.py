"""SEP: its checkpoints, variance reduction and features."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from raygrid.attacks.base import AttackContext
from raygrid.attacks.common.features import mean_features
from raygrid.attacks.common.surrogates import sep120
from raygrid.attacks.sep import Sep, reduced
from raygrid.core.images import Images
from raygrid.core.seeds import Stream
from raygrid.nn.networks import freeze
from raygrid.nn.pgd import Descent, cross_entropy
from tests.attacks.toys import CPU, make, victim


def sep(members: list[nn.Module], **settings: object) -> tuple[Sep, AttackContext]:
    attack = make("sep", checkpoints=len(members), surrogate_epochs=6, **settings)
    assert isinstance(attack, Sep)
    networks = freeze(nn.ModuleList(members))
    return attack, AttackContext(Stream("poison"), surrogates={"sep120": networks})


def test_sep_keeps_equidistant_epochs() -> None:
    assert sep120("resnet18", 120, 15).kept == tuple(range(7, 120, 8))
    assert sep120("resnet18", 120, 30).kept == tuple(range(3, 120, 4))
    recipe = sep120("resnet18", 120, 15).recipe
    rates = [recipe.rate(e) for e in (0, 1, 74, 75, 89, 90)]
    assert rates == pytest.approx([0.0505, 0.1, 0.1, 0.01, 0.01, 0.001])


def test_sep_on_one_network_is_targeted_descent(images: Images) -> None:
    network = victim(images, 2)
    attack, context = sep([network], variant="ce", steps=4, batch_size=64)
    x = images.floats()
    loss = cross_entropy(network, (images.labels + 2) % 4)
    delta, _ = Descent(8 / 255, 1 / 255, 4)(x, x, loss)
    expected = images.with_pixels((x + delta).clamp(0, 1).mul(255).round().byte())
    assert torch.equal(attack.pixels(images, context), expected.pixels)


def test_variance_reduction_with_one_draw_is_the_plain_step(images: Images) -> None:
    network = victim(images, 2)
    attack, context = sep([network], variant="fa", steps=3, last_means=True)
    with_vr = dataclasses.replace(attack, variant="fa_vr", inner_steps=1)
    one, other = (a.pixels(images, context) for a in (attack, with_vr))
    assert (one != other).float().mean() < 0.005


def test_variance_reduction_follows_its_formula(images: Images) -> None:
    weights = [
        torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(s)) for s in (0, 1)
    ]
    # Gradients that depend on the place: of (w * z * z / 2).sum() it is w * z.
    objectives = [(lambda z, step, w=w: (w * z * z / 2).flatten(1).sum(1)) for w in weights]
    x = images.floats()
    inner = Descent(8 / 255, 1 / 255, 3)
    context = AttackContext(Stream("poison"))
    _, total = reduced(objectives, objectives, x, inner, context)(x, 5)
    drawn = torch.randint(2, (3,), generator=context.stream.generator("member", 5)).tolist()
    v, s, mean = x, torch.zeros_like(x), x * (weights[0] + weights[1]) / 2
    for k in drawn:
        s = s + weights[k] * v - (weights[k] * x - mean)
        v = (v - s.sign() / 255).clamp(0, 1)
    torch.testing.assert_close(total, s)


def test_feature_means_are_those_of_the_clean_classes(images: Images) -> None:
    network = victim(images, 1)
    means = mean_features(network, images, 24, CPU)  # type: ignore[arg-type]
    for label in range(4):
        own = network.features(images.floats(images.labels == label))  # type: ignore[operator]
        torch.testing.assert_close(means[label], own.mean(0))


def test_the_order_of_checkpoints_does_not_matter(images: Images) -> None:
    members = [victim(images, e) for e in (1, 2, 3)]
    for variant in ("ce", "fa"):
        one, other = (
            attack.pixels(images, context)
            for attack, context in (
                sep(m, variant=variant, steps=2) for m in (members, members[::-1])
            )
        )
        assert (one != other).float().mean() < 0.005
