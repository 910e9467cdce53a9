"""Plasma against the rule of kornia 0.6.12 (contrib/diamond_square.py, _2d/intensity/plasma.py)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from raygrid.nn.augment.plasma import brightened, contrasted, doubled, first_nine, plasma
from tests.defenses.toys import rng


def step_by_point(grid: Tensor, noise: Tensor, share: float) -> Tensor:
    """One diamond and one square step, point by point; borders are mirrored, then times 4/3."""
    last = 2 * grid.shape[0] - 2
    out = torch.zeros(last + 1, last + 1, dtype=torch.float64)
    out[::2, ::2] = grid

    def mirrored(i: int) -> int:
        return last - abs(last - abs(i))

    def mean(i: int, j: int, around: tuple[tuple[int, int], ...]) -> float:
        near = [float(out[mirrored(i + di), mirrored(j + dj)]) for di, dj in around]
        return sum(near) / 4

    diagonal = ((-1, -1), (-1, 1), (1, -1), (1, 1))
    cross = ((-1, 0), (1, 0), (0, -1), (0, 1))
    for i in range(1, last, 2):
        for j in range(1, last, 2):
            out[i, j] = (1 - share) * mean(i, j, diagonal) + share * noise[i, j]
    for i in range(last + 1):
        for j in range((i + 1) % 2, last + 1, 2):
            border = 4 / 3 if i in (0, last) or j in (0, last) else 1.0
            out[i, j] = (1 - share) * border * mean(i, j, cross) + share * noise[i, j]
    return out


@pytest.mark.parametrize("size", [3, 5, 9])
def test_a_step_is_a_diamond_and_a_square(size: int) -> None:
    draws = rng()
    maps = torch.rand(2, size, size, generator=draws)
    noise = torch.rand(2, 2 * size - 1, 2 * size - 1, generator=draws)
    out = doubled(maps, noise, torch.tensor([0.3, 0.49]).view(2, 1, 1))
    for number, share in enumerate((0.3, 0.49)):
        wanted = step_by_point(maps[number], noise[number], share)
        torch.testing.assert_close(out[number].double(), wanted, atol=1e-6, rtol=1e-5)


def test_the_first_nine_values_are_a_third_of_what_means_would_be() -> None:
    nine = first_nine(torch.tensor([[[0.9, 0.3], [0.6, 0.0]]]))[0]
    wanted = torch.tensor([[0.9, 1.65, 0.3], [1.95, 0.45, 0.75], [0.6, 0.75, 0.0]]) / 3
    torch.testing.assert_close(nine, wanted)


@pytest.mark.parametrize("side", [4, 20, 32])
def test_maps_keep_their_first_points_and_their_sizes(side: int) -> None:
    """Points of the first nine stay as they are: corners U(0, 1/3), the middle of a side 1/2."""
    maps = plasma(torch.empty(700, 3, side, side), torch.full((700,), 0.5), rng())
    assert maps.shape == (700, 3, side, side)
    half = 2 ** (side - 2).bit_length() // 2
    corner = maps[:, :, 0, 0].flatten()
    assert (corner.min(), corner.max()) == (
        pytest.approx(0, abs=1e-3),
        pytest.approx(1 / 3, abs=1e-3),
    )
    assert corner.mean() == pytest.approx(1 / 6, abs=0.01)
    assert maps[:, :, half, half].mean() == pytest.approx(1 / 6, abs=0.01)
    assert maps[:, :, 0, half].mean() == pytest.approx(1 / 2, abs=0.01)
    assert maps[:, :, half, 0].mean() == pytest.approx(1 / 2, abs=0.01)
    assert (maps[:, 0] != maps[:, 1]).any((1, 2)).all(), "channels share a map"


def test_roughness_is_the_share_of_noise() -> None:
    """Without it, a map is a function of its corners alone: the first step's centers, say."""
    like = torch.empty(300, 1, 4, 4)
    for rough in (0.0, 0.3, 1.0):
        maps = plasma(like, torch.full((300,), rough), rng())[:, 0]
        around = (maps[:, 0, 0] + maps[:, 0, 2] + maps[:, 2, 0] + maps[:, 2, 2]) / 4
        noise = maps[:, 1, 1] - (1 - rough) * around
        assert noise.mean() == pytest.approx(rough / 2, abs=0.05)
        assert noise.std() == pytest.approx(rough / 12**0.5, abs=0.03)


def test_brightness_adds_and_contrast_stretches() -> None:
    x = torch.full((2, 3, 1, 1), 0.6)
    maps = torch.tensor([0.75, 0.3]).view(2, 1, 1, 1).expand_as(x)
    bright = brightened(x, maps, torch.tensor([0.5, 1.0]))
    torch.testing.assert_close(bright[:, 0, 0, 0], torch.tensor([0.85, 0.2]))
    torch.testing.assert_close(contrasted(x, maps)[:, 0, 0, 0], torch.tensor([0.8, 0.62]))
    assert brightened(x, torch.ones_like(x), torch.ones(2)).max() == 1.0
    assert contrasted(torch.zeros_like(x), torch.ones_like(x)).min() == 0.0
