"""TrivialAugment's operations against kornia's rules, and kornia itself where it is installed."""

from __future__ import annotations

import importlib
import math
from dataclasses import replace
from importlib import metadata
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor

from raygrid.nn.augment import trivial
from raygrid.nn.augment.trivial import POLICIES, Policy, one_of
from tests.defenses.toys import rng
from tests.distributions import distance

# kornia 0.6.12 and 0.9.0, auto/trivial_augment: the magnitude function is called since 0.9 only
RANGES: dict[Policy, dict[str, tuple[float, float]]] = {
    "trivial": {
        "posterize": (0, 4),
        "solarize": (0, 1),
        "enhance_contrast": (0.1, 1.9),
        "enhance_brightness": (0.1, 1.9),
        "sharpness": (0.1, 1.9),
        "rotate": (0, 30),
        "shear_x": (0, 0.3),
        "shear_y": (0, 0.3),
        "pushed_x": (0, 0.5),
        "pushed_y": (0, 0.5),
    },
}
RANGES["trivial_wide"] = {
    **{name: RANGES["trivial"][name] for name in list(RANGES["trivial"])[:5]},
    "rotate": (-30, 30),
    "shear_x": (-54, 54),
    "shear_y": (-54, 54),
    "translate_x": (-0.5, 0.5),
    "translate_y": (-0.5, 0.5),
}


def levels(n: int = 4, side: int = 16) -> Tensor:
    return torch.randint(0, 256, (n, 3, side, side), generator=rng(1)).float() / 255


@pytest.mark.parametrize("policy", RANGES)
def test_strengths_come_from_their_ranges(policy: Policy) -> None:
    seen: dict[str, Tensor] = {}
    for operation in POLICIES[policy]:
        name = operation.operation.__name__

        def note(x: Tensor, strength: Tensor, name: str = name) -> Tensor:
            seen[name] = strength
            return x

        replace(operation, operation=note)(torch.empty(2000, 0), rng())
    assert len(seen) == len(POLICIES[policy]) == 12
    for name, (low, high) in RANGES[policy].items():
        assert distance(seen.pop(name), low, high) < 0.04, name
    assert {name.removesuffix("_stretched") for name in seen} == {"auto_contrast", "equalize"}


def test_every_operation_is_as_likely(monkeypatch: pytest.MonkeyPatch) -> None:
    marks = tuple(lambda x, rng, k=k: torch.full_like(x, k) for k in range(12))
    monkeypatch.setitem(POLICIES, "trivial", marks)  # type: ignore[arg-type]
    draws, apply = rng(), one_of("trivial")
    drawn = torch.stack([apply(torch.zeros(1), draws) for _ in range(2400)])
    counts = drawn.long().flatten().bincount(minlength=12)
    assert (counts / 2400 - 1 / 12).abs().max() < 0.03


# --- colors --------------------------------------------------------------------------------------


def test_colors_by_hand() -> None:
    x = torch.tensor([0.2, 0.5, 0.9]).view(1, 1, 1, 3).expand(2, 1, 1, 3)
    half = torch.tensor([0.5, 1.5])
    for operation, wanted in (
        (trivial.enhance_contrast, [[0.1, 0.25, 0.45], [0.3, 0.75, 1.0]]),
        (trivial.enhance_brightness, [[0.0, 0.0, 0.4], [0.7, 1.0, 1.0]]),
        (trivial.solarize, [[0.2, 0.5, 0.1], [0.2, 0.5, 0.9]]),
        (trivial.auto_contrast, [[0.0, 0.3 / 0.7, 1.0]] * 2),
    ):
        out = operation(x, half)[:, 0, 0]
        torch.testing.assert_close(out, torch.tensor(wanted), atol=2e-6, rtol=0)


def test_sharpness_blends_with_the_blur_inside() -> None:
    """The kernel (1 1 1, 1 5 1, 1 1 1) / 13; a single 1 in zeros: 5/13, its neighbors 1/13."""
    x = torch.zeros(2, 1, 5, 5)
    x[:, :, 2, 2] = 0.5
    out = trivial.sharpness(x, torch.tensor([0.25, 1.5]))[:, 0]
    blurred, original = 0.5 * 5 / 13, 0.5
    assert out[0, 2, 2].item() == pytest.approx(blurred + 0.25 * (original - blurred))
    assert out[0, 1, 3].item() == pytest.approx(0.75 * 0.5 / 13)
    assert out[1, 2, 2].item() == pytest.approx(blurred + 1.5 * (original - blurred))
    assert out[1, 1, 3].item() == 0.0  # less than black
    corner = torch.rand(1, 3, 6, 6, generator=rng())
    kept = trivial.sharpness(corner, torch.tensor([0.1]))
    assert torch.equal(kept[..., 0, :], corner[..., 0, :])
    assert torch.equal(kept[..., :, -1], corner[..., :, -1])


@pytest.mark.parametrize("bits", range(5))
def test_posterize_cuts_off_levels(bits: int) -> None:
    """kornia: uint8(255 x) / 2^s / 255, that to uint8 again times 2^s; zero bits are black."""
    x = (np.arange(256, dtype=np.float32) / np.float32(255)).reshape(1, 1, 16, 16)
    shift = np.float32(2 ** (8 - bits))
    first = np.floor(x * np.float32(255)) / shift / np.float32(255)
    wanted = np.floor(first * np.float32(255)) * shift / np.float32(255) * (bits > 0)
    out = trivial.posterize(torch.from_numpy(x), torch.tensor([float(bits)]))
    assert np.array_equal(out.numpy(), wanted)
    assert len(out.unique()) <= 2**bits
    near = torch.tensor([bits + 0.4 if bits < 4 else 3.6])
    assert torch.equal(trivial.posterize(torch.from_numpy(x), near), out)


def test_equalize_is_that_of_pillow_on_whole_levels() -> None:
    x = (levels() * 0.4 + 0.3).mul(255).round() / 255
    pixels = x.mul(255).round().byte().permute(0, 2, 3, 1).numpy()
    wanted = np.stack([np.asarray(ImageOps.equalize(Image.fromarray(one))) for one in pixels])
    out = trivial.equalize(x, torch.zeros(4)).mul(255).round().byte()
    assert np.array_equal(out.permute(0, 2, 3, 1).numpy(), wanted)
    even = torch.full((1, 3, 16, 16), 0.4)
    assert torch.allclose(trivial.equalize(even, torch.zeros(1)), even)


def test_equalize_as_printed_counts_in_stretched_bins() -> None:
    """Port of kornia 0.6.12 (enhance/adjust.py): torch.histc over 0 to 255, a table, one lookup."""
    x = torch.rand(3, 3, 16, 16, generator=rng())
    out = trivial.equalize_stretched(x, torch.zeros(3))
    for image, made in zip(x.flatten(0, 1) * 255, out.flatten(0, 1), strict=True):
        counts = torch.histc(image, bins=256, min=0, max=255)
        step = torch.div(counts.sum() - counts[counts != 0][-1], 255, rounding_mode="trunc")
        sums = counts.cumsum(0) + torch.div(step, 2, rounding_mode="trunc")
        table = torch.div(sums, step, rounding_mode="trunc").roll(1)
        table[0] = 0
        wanted = table.clamp(0, 255)[image.long()] / 255 if step else image / 255
        torch.testing.assert_close(made, wanted)
    assert not torch.equal(out, trivial.equalize(x, torch.zeros(3)))


# --- moves ---------------------------------------------------------------------------------------


def ramps(side: int = 33) -> tuple[Tensor, Tensor, float]:
    """Images whose values are the column, the row, and the place of the center."""
    at = torch.arange(float(side)) / side
    return at.expand(1, 1, side, side), at[:, None].expand(1, 1, side, side), (side - 1) / 2


INSIDE = slice(13, 20)


def test_shears_and_turns_are_about_the_center() -> None:
    columns, rows, center = ramps()
    away = (torch.arange(33.0) - center) / 33
    for degrees in (0.3, -54.0 / 4):
        by = torch.tensor([degrees])
        slope = math.tan(math.radians(degrees))
        out = trivial.shear_x(columns, by)[0, 0]
        wanted = columns[0, 0] + slope * away[:, None]
        torch.testing.assert_close(out[INSIDE, INSIDE], wanted[INSIDE, INSIDE])
        out = trivial.shear_y(rows, by)[0, 0]
        wanted = rows[0, 0] + slope * away[None]
        torch.testing.assert_close(out[INSIDE, INSIDE], wanted[INSIDE, INSIDE])
    quarter = trivial.rotate(levels(1), torch.tensor([90.0]))
    torch.testing.assert_close(quarter, levels(1).rot90(1, (2, 3)), atol=1e-5, rtol=0)


def test_shifts_are_shares_of_the_side() -> None:
    """To the right and down, black comes in; 0.6.12 goes a pixel of the side further."""
    x = levels(1, 32)
    for across, down in ((trivial.translate_x, trivial.translate_y),):
        out = across(x, torch.tensor([0.25]))
        torch.testing.assert_close(out[..., 8:], x[..., :-8], atol=1e-5, rtol=0)
        assert out[..., :8].abs().max() < 1e-5
        out = down(x, torch.tensor([0.25]))
        torch.testing.assert_close(out[..., 8:, :], x[..., :-8, :], atol=1e-5, rtol=0)
    exact = torch.tensor([0.25 * 31 / 32])
    torch.testing.assert_close(
        trivial.pushed_x(x, exact), trivial.translate_x(x, torch.tensor([0.25]))
    )
    torch.testing.assert_close(
        trivial.pushed_y(x, exact), trivial.translate_y(x, torch.tensor([0.25]))
    )


# --- kornia itself -------------------------------------------------------------------------------

FACTORS = {
    **{"rotate": "degrees", "posterize": "bits_factor", "solarize": "thresholds"},
    **{"contrast": "contrast_factor", "brightness": "brightness_factor"},
}


def kornia_operations() -> dict[str, tuple[Any, Tensor]]:
    """kornia's operations by name with the parameters of one draw for 32 images."""
    auto = pytest.importorskip("kornia.augmentation.auto.trivial_augment.trivial_augment")
    ops = importlib.import_module("kornia.augmentation.auto.rand_augment.ops")
    found = {}
    for ((name, low, high),) in auto.default_policy:
        operation = getattr(ops, name)(low, high)
        params = operation.forward_parameters(torch.Size((32, 3, 16, 16)))
        strength = params.get(FACTORS.get(name, name), torch.zeros(32)).float()
        found[name] = (lambda x, o=operation, p=params: o(x, params=p).detach(), strength)
    return found


def test_the_wide_policy_is_that_of_kornia_09() -> None:
    pytest.importorskip("kornia")
    if metadata.version("kornia") < "0.9":
        pytest.skip("kornia before 0.9 has the other policy")
    torch.manual_seed(0)
    x = torch.rand(32, 3, 16, 16)
    ours = {
        o.operation.__name__.removeprefix("enhance_"): o.operation for o in POLICIES["trivial_wide"]
    }
    theirs = kornia_operations()
    assert set(theirs) == set(ours)
    known = {k.removeprefix("enhance_"): v for k, v in RANGES["trivial_wide"].items()}
    for name, (operation, strength) in theirs.items():
        strength = strength / 16 if name.startswith("translate") else strength
        low, high = known.get(name, (0, 0))
        assert strength.min() >= low - 1e-6
        assert strength.max() <= high + 1e-6
        torch.testing.assert_close(ours[name](x, strength), operation(x), atol=1e-5, rtol=0)
