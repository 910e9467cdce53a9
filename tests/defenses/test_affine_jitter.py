"""The augmentation of OP's victim: psandovalsegura/learn-from-unlearnable@605dea2."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from raygrid.core import draws
from raygrid.core.errors import SpecError
from raygrid.core.spec import parse_chain
from raygrid.defenses import DEFENSES
from raygrid.defenses.affine_jitter import AffineJitter, rotated, sheared
from raygrid.defenses.chain import Chain
from raygrid.protocols import PROTOCOLS
from tests.conftest import seeded, toy

CPU = torch.device("cpu")


def theirs(x: Tensor, drawn: Tensor, order: list[int]) -> Tensor:
    """An image (C, H, H) by torchvision's operations in the order of the code's `Compose`.

    drawn: six values in [0, 1). RandomRotation(10), RandomAffine(0, shear=10, scale=(0.8, 1.2)) and
    ColorJitter of 0.2 each, with the transforms' own defaults (nearest pixels, filled with 0).
    """
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as tv

    turn, lean, size, *colors = drawn.tolist()
    near = InterpolationMode.NEAREST
    x = tv.rotate(x, -10 + 20 * turn, near, fill=[0.0])
    shear = [-10 + 20 * lean, 0.0]
    x = tv.affine(x, 0.0, [0, 0], 0.8 + 0.4 * size, shear, near, fill=[0.0])
    changes = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation)
    for which in order:
        x = changes[which](x, 0.8 + 0.4 * colors[which])
    return x


@pytest.mark.parametrize("side", [32, 33])
def test_images_are_those_of_the_code(side: int) -> None:
    """All but the few pixels whose place lies halfway between two others."""
    x = toy(24, side).floats()
    found, _ = AffineJitter().augment(x, torch.zeros(24), seeded())
    again = seeded()
    drawn, order = draws.rand((6, 24), again, CPU), draws.randperm(3, again).tolist()
    for image, made, values in zip(x, found, drawn.T, strict=True):
        off = (theirs(image, values, order) - made).abs().amax(0)
        assert float((off > 2e-2).float().mean()) < 0.01


def test_turns_and_shears_go_where_they_should() -> None:
    x = toy(3, 32).floats()
    quarter = rotated(x, torch.tensor([90.0, -90.0, 180.0]))
    for image, made, turns in zip(x, quarter, (1, -1, 2), strict=True):
        assert torch.equal(made, image.rot90(turns, (1, 2)))
    # At 45 degrees a row goes a pixel to the left for each pixel that it lies lower.
    corner = torch.zeros(1, 1, 33, 33)
    corner[..., 20, 10:13] = 1
    leaning = sheared(corner, torch.tensor([45.0]), torch.ones(1))
    assert leaning[0, 0].nonzero().tolist() == [[20, 6], [20, 7], [20, 8]]
    double = sheared(corner, torch.zeros(1), torch.tensor([2.0]))
    rows, columns = double[0, 0].nonzero().unbind(1)
    assert (int(rows.min()), int(rows.max())) in {(23, 24), (24, 25), (23, 25)}
    assert int(columns.max() - columns.min()) in (5, 6)


def test_draws_fill_their_ranges() -> None:
    """The level of gray images tells their factor of brightness, the others leave it alone."""
    gray = torch.ones(512, 3, 8, 8) / 2
    bright = AffineJitter(rotation=0, shear=0, scale=0).augment(gray, torch.zeros(512), seeded())[0]
    level = 2 * bright[:, 0, 4, 4]
    assert 0.8 <= float(level.min()) < 0.81
    assert 1.19 < float(level.max()) <= 1.2
    assert float(level.std()) == pytest.approx(0.4 / 12**0.5, rel=0.1)


def test_the_printed_row_is_a_chain_that_mixes_a_box_of_half_of_the_batches() -> None:
    chain = Chain.make(parse_chain("op+affine_jitter+cutmix(box=batch, p=0.5)"))
    assert [link.id for link in chain.purifiers] == ["op"]
    assert chain.mixes
    x, y = toy(8, 32).floats(), torch.eye(10)[torch.arange(8)]
    mixed = [not torch.equal(chain.augment(x, y, seeded(seed))[1], y) for seed in range(40)]
    assert 10 <= sum(mixed) <= 30


def test_its_victim_is_trained_as_in_the_code() -> None:
    """parse_args, and MultiStepLR with int(0.5 E) and int(0.75 E); Normalize in both transforms."""
    recipe = PROTOCOLS.make("op").recipe("supervised", "cifar10", 32)
    assert (recipe.epochs, recipe.batch_size, recipe.lr) == (50, 128, 0.1)
    assert (recipe.momentum, recipe.weight_decay, recipe.nesterov) == (0.9, 1e-4, False)
    assert (recipe.schedule, recipe.milestones, recipe.gamma) == ("step", (25, 37), 0.1)
    assert recipe.normalize
    assert recipe.grad_clip is None


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ("rotation=181", "rotation is 181.0, allowed are 0 to 180"),
        ("shear=-1", "shear is -1.0, allowed are 0 to 60"),
        ("scale=1", "scale is 1.0, allowed are 0 to below 1"),
        ("jitter=-0.1", "jitter is -0.1, allowed are 0 to below 1"),
    ],
)
def test_what_is_out_of_range_is_refused(part: str, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        DEFENSES.make(f"affine_jitter({part})")
