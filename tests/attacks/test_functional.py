"""Functional attacks: color tables, their bounds and what they do to a network."""

from __future__ import annotations

import pytest
import torch

from raygrid.attacks.base import AttackContext
from raygrid.attacks.common.luv import to_luv, to_rgb
from raygrid.attacks.common.roughness import rough
from raygrid.attacks.common.surrogate_training import accuracy
from raygrid.attacks.functional import Change, Functional, identity_table, look_up
from raygrid.core.images import Images
from raygrid.core.seeds import Stream
from tests.attacks.test_attacks import craft_for
from tests.attacks.toys import CPU, WORLD, make, victim
from tests.conftest import toy


def functional(**settings: object) -> Functional:
    made = make("functional", **settings)
    assert isinstance(made, Functional)
    return made


def test_luv_and_back_is_exact_to_a_quarter_of_a_level() -> None:
    levels = torch.tensor([0, 1, 5, 10, 11, 40, 90, 128, 200, 255]) / 255
    rgb = torch.cartesian_prod(levels, levels, levels).T[None]
    assert (to_rgb(to_luv(rgb)) - rgb).abs().max() * 255 < 0.25
    white = to_luv(torch.ones(1, 3, 1)).flatten()
    torch.testing.assert_close(white, torch.tensor([1.0, 0.5, 0.5]), atol=2e-3, rtol=0)
    red = to_luv(torch.tensor([1.0, 0, 0]).view(1, 3, 1)).flatten()
    # L*u*v* of sRGB red: 53.24, 175.01, 37.76
    expected = torch.tensor([0.5324, (175.01 + 100) / 200, (37.76 + 100) / 200])
    torch.testing.assert_close(red, expected, atol=2e-3, rtol=0)


def test_luv_gradients_are_finite_at_black_and_white() -> None:
    rgb = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 1.0]]).T[None]
    rgb.requires_grad_()
    to_rgb(to_luv(rgb)).sum().backward()
    assert rgb.grad is not None
    assert torch.isfinite(rgb.grad).all()


def test_the_identity_table_changes_no_color_in_its_box() -> None:
    colors = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    table = identity_table(CPU).expand(2, -1, -1, -1, -1)
    torch.testing.assert_close(look_up(table, colors), colors, atol=1e-5, rtol=0)
    # One node: the corner of L = 1, u = v = 0 has weight 1 at that color alone.
    bent = table.clone()
    bent[:, 0, 15, 0, 0] = 0.25
    corner = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(2, -1, 1, 1)
    torch.testing.assert_close(look_up(bent, corner)[:, 0].flatten(), torch.tensor([0.25] * 2))


def test_roughness_counts_both_neighbors() -> None:
    values = torch.zeros(1, 2, 2, 1)
    values[0, :, 1, 0] = torch.tensor([3.0, 4.0])
    assert float(rough(values)) == pytest.approx(10.0)


def test_margin_is_the_lead_of_the_label() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
    labels = torch.tensor([0, 1])
    assert functional().margin(logits, labels).tolist() == [1.0, -2.0]
    assert functional(targeted=True).margin(logits, labels).tolist() == [2.0, 1.0]


def test_parameters_stay_in_their_bounds(images: Images) -> None:
    attack = functional(parts="csd", strength=0.5)
    change = Change(attack, images.floats()[:4])
    with torch.no_grad():
        for parameter in change.parameters:
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
        out = change.apply()
        assert (change.table - change.table0).abs().max() <= 0.03 + 1e-6
        assert (change.flow - change.flow0).abs().max() <= 0.025 + 1e-6
        assert change.flow.abs().max() <= 1
        assert 0 < change.noise.abs().max() <= 4 / 255 + 1e-6
        assert out.min() >= 0
        assert out.max() <= 1


def test_recoloring_maps_equal_colors_to_equal_colors() -> None:
    generator = torch.Generator().manual_seed(0)
    palette = torch.randint(256, (16, 3, 4), generator=generator)
    picks = torch.randint(4, (16, 1, 16, 16), generator=generator).expand(-1, 3, -1, -1)
    pixels = palette.gather(2, picks.flatten(2)).view(16, 3, 16, 16).byte()
    images = Images(pixels, torch.arange(16) % 4, 4)
    attack = functional(steps=2, lr=0.03, surrogate_epochs=1, batch_size=16)
    poisoned = attack.pixels(images, craft_for(attack, images))
    assert not torch.equal(poisoned, pixels)
    for before, after, pick in zip(pixels, poisoned, picks[:, 0], strict=True):
        for color in range(4):
            here = pick == color
            assert len(after[:, here].unique(dim=1).T) <= 1, before[:, here][:, 0]


@pytest.mark.parametrize(("parts", "drop"), [("c", 0.15), ("csd", 0.5)])
def test_functional_attacks_fool_the_network(parts: str, drop: float) -> None:
    network, images = victim(WORLD, 4), toy(32)
    attack = functional(parts=parts, steps=8, lr=0.01, batch_size=32)
    context = AttackContext(Stream("poison"), surrogates={"tap40": network})
    poisoned = images.with_pixels(attack.pixels(images, context))
    assert accuracy(network, poisoned) < accuracy(network, images) - drop


def test_a_fused_step_gets_gradients_in_the_layout_of_what_it_moves(
    images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA refuses others, and a CPU paired the noise of a pixel with another one's gradient."""
    seen: list[tuple[int, ...]] = []
    step = torch.optim.Adam.step

    def watched(optimizer: torch.optim.Adam, *args: object) -> object:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                assert parameter.grad.stride() == parameter.stride()
                seen.append(parameter.stride())
        return step(optimizer)

    monkeypatch.setattr(torch.optim.Adam, "step", watched)
    attack = functional(parts="csd", steps=2)
    context = craft_for(attack, images)
    context.surrogates["tap40"].to(memory_format=torch.channels_last)
    attack.poison(images, context)
    assert len(seen) >= 6
