"""What random defenses draw, against the distributions that they are described by."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from raygrid.defenses import DEFENSES
from tests.defenses.toys import levels, rng
from tests.distributions import distance

SIDE = 16


# --- CutMix --------------------------------------------------------------------------------------


def share(cut: int) -> float:
    """How likely floor(side * sqrt(u)) is `cut`."""
    return ((cut + 1) ** 2 - cut**2) / SIDE**2


def starts(box: str, cut: int) -> range:
    """The equally likely first rows of boxes of `cut` rows, some of them above the image."""
    inside = range(max(SIDE - cut - 1, 1))
    return inside if box == "inside" else range(-(cut // 2), SIDE - cut // 2)


def covered(box: str) -> Tensor:
    """How likely each pixel lies in a box, counted over all boxes: (SIDE, SIDE)."""
    total = torch.zeros(SIDE, SIDE)
    for cut in range(SIDE):
        each = [[start <= row < start + cut for start in starts(box, cut)] for row in range(SIDE)]
        rows = torch.tensor(each).float().mean(1)
        total += share(cut) * rows[:, None] * rows
    return total


def boxes(box: str, calls: int, p: float = 1.0) -> Tensor:
    """Pixels that were pasted, bool (calls, n, SIDE, SIDE), of images that were given another."""
    n = {"batch": 4, "inside": 8}.get(box, 2000)
    x, y = levels(n, SIDE)
    cutmix, draws = DEFENSES.make(f"cutmix(box={box}, p={p})"), rng()
    return torch.stack([(cutmix.augment(x, y, draws)[0] != x).all(1) for _ in range(calls)])


@pytest.mark.parametrize("box", ["inside", "clipped"])
def test_boxes_lie_where_they_should(box: str) -> None:
    masks = boxes(box, 2 if box == "clipped" else 1500).flatten(0, 1)
    given = 1 - 1 / 8 if box == "inside" else 1.0  # an image that was given itself shows no box
    found, expected = masks.float().mean(0), given * covered(box)
    assert (found - expected).abs().max() < 0.04
    assert found.mean() == pytest.approx(float(expected.mean()), abs=0.015)


def test_clipped_boxes_are_smaller() -> None:
    """So the test above tells the two apart."""
    assert covered("clipped").mean() < covered("inside").mean() - 0.15


def test_boxes_inside_share_one_relative_place() -> None:
    """kornia 0.6.12 (random_generator/_2d/cutmix.py): floor(v (side - size - 1)), one v a batch."""
    for batch in boxes("inside", 200):
        assert not batch[:, -1].any()
        assert not batch[..., -1].any()
        for axis in (1, 2):
            low, high = 0.0, 1.0
            for line in batch.any(3 - axis).long():
                cut, start = int(line.sum()), int(line.argmax())
                room = SIDE - cut - 1
                if cut and room:  # v is in [start / room, (start + 1) / room)
                    low, high = max(low, start / room), min(high, (start + 1) / room)
                elif cut:
                    assert start == 0
            assert low < high, "no place explains all boxes"


def test_a_batch_shares_one_clipped_box() -> None:
    masks = boxes("batch", 1000)
    whole = masks.any(1)
    # An image that was given itself shows no box.
    assert (~masks.flatten(2).any(2) | (masks == whole[:, None]).flatten(2).all(2)).all()
    given = 1 - 1 / 24  # in one of 24 orders every image is given itself
    assert (whole.float().mean(0) - given * covered("clipped")).abs().max() < 0.05
    mixed = boxes("batch", 1000, p=0.5).flatten(1).any(1).float().mean()
    assert mixed == pytest.approx(0.5 * given * (1 - share(0)), abs=0.05)


@pytest.mark.parametrize("part", ["cutmix", "cutmix(box=batch)", "mixup"])
def test_images_are_mixed_along_a_random_permutation(part: str) -> None:
    n, calls = 5, 600
    x, y = levels(n, SIDE)
    mixing, draws = DEFENSES.make(part), rng()
    orders: set[tuple[int, ...]] = set()
    pairs = torch.zeros(n, n)
    for _ in range(calls):
        soft = mixing.augment(x, y, draws)[1]
        others = soft - soft * torch.eye(n)
        order = torch.where(others.any(1), others.argmax(1), torch.arange(n))
        if len(order.unique()) == n:  # one box in 256 has no pixel and does not show whose it is
            orders.add(tuple(order.tolist()))
            pairs[torch.arange(n), order] += 1
    seen = pairs.sum(1)
    assert seen.min() > 0.95 * calls
    assert len(orders) > 110, "of 120 orders"
    assert (pairs / seen - 1 / n).abs().max() < 0.08


# --- the others ----------------------------------------------------------------------------------


def test_mixup_weights_are_uniform() -> None:
    n = 2000
    x, y = levels(n, 1)
    weights = DEFENSES.make("mixup").augment(x, y, rng())[1].diagonal()
    assert distance(weights) < 0.04
    half = DEFENSES.make("mixup(p=0.5)").augment(x, y, rng())[1].diagonal()
    assert distance(half[half < 1]) < 0.055


@pytest.mark.parametrize(("kind", "low"), [("uniform", -1.0), ("positive", 0.0)])
def test_noise_is_uniform_and_independent(kind: str, low: float) -> None:
    """Of every other value: channels, neighbors and images."""
    x = torch.full((64, 3, 32, 32), 0.5)
    made = DEFENSES.make(f"random_noise(kind={kind}, level=0.25)")
    noise = (made.augment(x, torch.zeros(64), rng())[0] - 0.5) / 0.25
    assert distance(noise, low, 1.0) < 0.005
    independent(noise)


def test_gaussian_noise_is_independent() -> None:
    x = torch.full((64, 3, 32, 32), 0.5)
    made = DEFENSES.make("random_noise(kind=gaussian, level=0.05)")
    noise = (made.augment(x, torch.zeros(64), rng())[0] - 0.5) / 0.05
    assert distance(torch.special.ndtr(noise)) < 0.005
    independent(noise)


def independent(noise: Tensor) -> None:
    for axis in range(4):
        pair = torch.stack([noise, noise.roll(1, axis)]).flatten(1)
        assert torch.corrcoef(pair)[0, 1].abs() < 0.015, f"values are alike along axis {axis}"


@pytest.mark.parametrize(("low", "high"), [(0.1, 2.0), (0.5, 1.0)])
def test_widths_of_random_blur_are_uniform(low: float, high: float) -> None:
    """The sigma of each image from what becomes of one white pixel; all channels have it."""
    x = torch.zeros(2000, 3, 5, 5)
    x[:, :, 2, 2] = 1
    made = DEFENSES.make(f"random_blur(low={low}, high={high})")
    out = made.augment(x, torch.zeros(2000), rng())[0]
    sigma = (-0.5 / (out[:, :, 2, 3] / out[:, :, 2, 2]).double().log()).sqrt()
    assert torch.allclose(sigma, sigma[:, :1].expand(-1, 3))
    assert distance(sigma[:, 0], low, high) < 0.04
