"""Proposals that come a few rows at a time are those of all rows together."""

from __future__ import annotations

import pytest
import torch

from raygrid.attacks import ATTACKS
from raygrid.attacks.base import AttackContext
from raygrid.attacks.common.piecewise import Piecewise
from raygrid.core.enforcement import enforce, facts_of_change, size_of_change
from raygrid.core.images import Images
from raygrid.core.seeds import Stream
from tests.conftest import toy

ROWS = 2100  # more than a piece of any of them


@pytest.fixture(scope="module")
def images() -> Images:
    return toy(ROWS, 32, 4)


def work(units: range | None = None) -> AttackContext:
    return AttackContext(Stream("poison", ("toy", 0)), units=units)


@pytest.mark.parametrize("part", ["lsp", "ar", "noise", "regions", "low_frequency"])
def test_pieces_make_the_pixels_of_the_whole(part: str, images: Images) -> None:
    attack = ATTACKS.make(part)
    assert isinstance(attack, Piecewise)
    pieces = [len(piece) for piece in attack.pieces(images, work())]
    assert sum(pieces) == ROWS
    assert max(pieces) <= 2048
    limit = attack.limit_at(32)
    whole = enforce(images.pixels, attack.propose(images, work()), limit)
    assert torch.equal(attack.pixels(images, work()), whole)
    some = range(256, 1800)  # a shard, whose pieces begin elsewhere
    assert torch.equal(attack.pixels(images, work(some)), whole[256:1800])


def test_sizes_of_change_are_those_of_every_image_alone(images: Images) -> None:
    other = torch.where(images.pixels > 127, images.pixels // 2, images.pixels)
    change = other.double() - images.pixels.double()
    found = {norm: size_of_change(images.pixels, other, norm) for norm in ("linf", "l2", "l0")}
    flat = change.flatten(1)
    assert torch.equal(found["linf"], (flat.abs().amax(1) / 255).float())
    assert (found["l2"] - flat.norm(dim=1) / 255).abs().max() < 1e-5
    assert torch.equal(found["l0"], (change != 0).any(1).flatten(1).sum(1).float())


def test_what_images_changed_by_is_the_mean_and_the_largest_of_every_norm() -> None:
    clean = torch.full((2, 3, 4, 4), 100, dtype=torch.uint8)
    other = clean.clone()
    other[1, :, 0, :2] += 51  # 0.2 in two pixels of one image
    facts = facts_of_change(clean, other)
    assert facts["unchanged"] == 1
    largest = {"linf": 0.2, "l2": 0.2 * 6**0.5, "l0": 2.0}
    assert facts["size"].keys() == largest.keys()
    for norm, value in largest.items():
        wanted = {"mean": pytest.approx(value / 2), "max": pytest.approx(value)}
        assert facts["size"][norm] == wanted
