"""Chains: their order, what cannot be one, and a purifier that breaks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch

from raygrid.core.errors import DataError, SpecError
from raygrid.core.images import Images, to_uint8
from raygrid.core.registry import Card
from raygrid.core.spec import parse_chain
from raygrid.defenses.base import Defense, FitContext
from raygrid.defenses.chain import Chain
from raygrid.defenses.cutout import Cutout
from raygrid.defenses.mixup import Mixup
from raygrid.trials.artifacts import purify
from tests.defenses.toys import batch, fit_context, rng


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("at+at", "several loss hooks"),
        ("early_stopping+early_stopping", "several derived"),
        ("none+jpeg", "stands alone"),
    ],
)
def test_impossible_chains_are_refused(text: str, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        Chain.make(parse_chain(text))


def test_a_chain_acts_in_order() -> None:
    x, y = batch()
    chain = Chain.make(parse_chain("cutout+mixup"))
    assert chain.mixes
    draws = rng()
    by_hand = Mixup().augment(*Cutout().augment(x, y, draws), draws)
    assert torch.equal(chain.augment(x, y, rng())[0], by_hand[0])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Broken(Defense):
    """Returns what it is given, for these tests."""

    id = "broken"
    card = Card(paper="none")
    wrong: Callable[[Images], object]

    def purify(self, images: Images, fit_context: FitContext) -> Images:
        return self.wrong(images)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda i: i.with_pixels(i.pixels[:, :, :8]), r"images \(64, 3, 8, 16\), expected \(64, 3"),
        (lambda i: i.with_pixels(i.pixels.float()), "torch.float32"),
        (lambda i: i.rows(torch.arange(3)), r"images \(3, 3, 16, 16\)"),
        (lambda i: dataclasses.replace(i, labels=1 - i.labels), "changed labels"),
        (lambda i: i.with_pixels(to_uint8(i.floats() * float("nan"))), "NaN"),
        (lambda i: i.pixels, "returned Tensor, expected Images"),
    ],
)
def test_a_broken_purifier_is_one_clear_error(
    wrong: Callable[[Images], object], says: str, images: Images
) -> None:
    with pytest.raises(DataError, match=f"broken.*{says}"):
        purify(Broken(wrong=wrong), images, fit_context())


def test_a_purifier_that_writes_into_its_images_is_told_to_change_a_copy(images: Images) -> None:
    own = dataclasses.replace(images, pixels=images.pixels.clone())
    link = Broken(wrong=lambda given: given.with_pixels(given.pixels.mul_(0)))
    with pytest.raises(DataError, match=r"^broken writes into the images it was given; .*clone"):
        purify(link, own, fit_context())
