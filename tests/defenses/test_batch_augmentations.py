"""Blur, cutout, CutMix, mixup and noise on batches against closed forms."""

from __future__ import annotations

import pytest
import torch

from raygrid.defenses import DEFENSES
from raygrid.defenses.cutmix import Cutmix
from raygrid.defenses.cutout import Cutout
from raygrid.defenses.mixup import Mixup
from raygrid.defenses.random_blur import blur_each
from tests.defenses.toys import batch, levels, rng


def test_random_blur_is_torchvisions_for_each_sigma() -> None:
    from torchvision.transforms.v2.functional import gaussian_blur

    x, _ = batch(4)
    sigma = torch.tensor([0.1, 0.5, 1.0, 2.0])
    for image, one, out in zip(x, sigma.tolist(), blur_each(x, sigma, 3), strict=True):
        assert torch.allclose(gaussian_blur(image, [3, 3], [one, one]), out, atol=1e-5)


def test_cutout_masks_one_rectangle_of_the_right_size() -> None:
    x = torch.rand(2000, 3, 32, 32, generator=rng()).clamp_min(0.01)
    out, _ = Cutout().augment(x, torch.zeros(2000).long(), rng(1))
    gone = (out == 0).all(1)
    assert torch.equal(gone, (out == 0).any(1)), "channels have different masks"
    assert torch.equal(out[~gone[:, None].expand_as(out)], x[~gone[:, None].expand_as(x)])
    rows, cols = gone.any(2).sum(1), gone.any(1).sum(1)
    assert torch.equal(gone.flatten(1).sum(1), rows * cols), "not a rectangle"
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (8, 16, 8, 16)
    # A center c in 0..31 leaves 16 rows but for those beyond the borders: 14 on average.
    side = sum(min(c + 8, 32) - max(c - 8, 0) for c in range(32)) / 32
    assert gone.float().mean() == pytest.approx((side / 32) ** 2, abs=0.005)
    assert (side / 32) ** 2 == pytest.approx(0.1914, abs=5e-5)


@pytest.mark.parametrize(("side", "length"), [(32, 16), (64, 32), (224, 16)])
def test_cutout_length_by_image_side(side: int, length: int) -> None:
    out, _ = Cutout().augment(torch.ones(200, 1, side, side), torch.zeros(200).long(), rng())
    assert (out == 0).any(3).squeeze(1).sum(1).max() == length


@pytest.mark.parametrize("box", ["inside", "clipped", "batch"])
def test_cutmix_labels_are_counted_pixels(box: str) -> None:
    n = 64
    x, y = levels(n)
    out, soft = DEFENSES.make(f"cutmix(box={box})").augment(x, y, rng())
    counts = torch.stack([(out == v).float().mean((1, 2, 3)) for v in x[:, 0, 0, 0]], 1)
    assert torch.allclose(counts.sum(1), torch.ones(n)), "a pixel has a value of no image"
    assert torch.allclose(soft, counts, atol=1e-6)
    pasted = 1 - soft.diagonal()
    assert box == "batch" or 0.2 < pasted.mean() < 0.5
    if box == "inside":  # whole squares only: the side is the root of the area
        sides = (pasted * 256).sqrt()
        assert torch.allclose(sides, sides.round(), atol=1e-3)


def test_cutmix_boxes_are_as_large_as_they_should_be() -> None:
    n, side = 4000, 16
    x, y = levels(n, side)
    _, soft = Cutmix().augment(x, y, rng())
    exact = sum((((k + 1) / side) ** 2 - (k / side) ** 2) * (k / side) ** 2 for k in range(side))
    assert 1 - soft.diagonal().mean() == pytest.approx(exact, abs=0.015)


def test_mixup_weighs_labels_as_pixels() -> None:
    n = 64
    x, y = levels(n)
    out, soft = Mixup().augment(x, y, rng())
    assert torch.allclose(out[:, 0, 0, 0], soft @ (torch.arange(n) / n), atol=1e-6)
    assert (soft > 0).sum(1).max() <= 2
    weights = soft.diagonal()
    assert weights.min() < 0.1
    assert weights.max() > 0.9
    assert weights.mean() == pytest.approx(0.5, abs=0.12)


def test_mixing_happens_with_its_probability() -> None:
    x, y = levels(2000, 4)
    for name in ("cutmix", "mixup"):
        soft = DEFENSES.make(f"{name}(p=0.5)").augment(x, y, rng())[1]
        mixed = (soft.diagonal() < 1).float().mean()
        empty = 1 / 16 if name == "cutmix" else 0.0  # boxes of no pixel: u < (1 / 4)^2
        assert mixed == pytest.approx(0.5 * (1 - empty), abs=0.04)


@pytest.mark.parametrize(
    ("kind", "low", "high", "sd"),
    [("uniform", -8, 8, 16 / 12**0.5), ("positive", 0, 8, 8 / 12**0.5), ("gaussian", -99, 99, 8)],
)
def test_noise_has_its_range_and_spread(kind: str, low: float, high: float, sd: float) -> None:
    x = torch.full((64, 3, 32, 32), 0.5)
    out, _ = DEFENSES.make(f"random_noise(kind={kind})").augment(x, torch.zeros(64), rng())
    change = (out - x) * 255
    assert low - 1e-3 <= change.min()
    assert change.max() <= high + 1e-3
    assert change.std() == pytest.approx(sd, rel=0.02)
    assert change.mean() == pytest.approx(4 if kind == "positive" else 0, abs=0.1)
