"""The embedded dataset never changes and shares nothing between its parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raygrid.core.errors import SpecError
from raygrid.core.images import fingerprint
from raygrid.datasets import DATASETS
from raygrid.datasets import photo_digits as photo_digits_module
from tests.datasets.on_disk import agree


@pytest.fixture(scope="module")
def digits() -> Any:
    return DATASETS.make("photo_digits").load(Path("nowhere"))


def test_photo_digits_never_change(digits: Any, tmp_path: Path) -> None:
    agree(DATASETS.make("photo_digits"), tmp_path)
    both = (digits.train.pixels, digits.train.labels, digits.test.pixels, digits.test.labels)
    assert fingerprint(*both) == "35cb1461aa53ff6675dca56e3e19aa9d"


def test_every_sixth_photo_digit_is_one_of_the_whole(digits: Any, tmp_path: Path) -> None:
    few = DATASETS.make("photo_digits(every=6)")
    assert (few.train_size, few.test_size) == (719, 180)
    split = few.load(tmp_path)
    agree(few, tmp_path)
    for part, whole in ((split.train, digits.train), (split.test, digits.test)):
        assert torch.equal(part.pixels, whole.pixels[::6])
        assert torch.equal(part.labels, whole.labels[::6])
    assert DATASETS.make("photo_digits").train_size == 4311
    assert few.resolved() != DATASETS.make("photo_digits").resolved()
    last = DATASETS.make("photo_digits(every=20)").load(tmp_path)
    assert min(last.test.labels.bincount(minlength=10)) > 0
    with pytest.raises(SpecError, match="every is 0, allowed are whole numbers from 1 to 20"):
        DATASETS.make("photo_digits(every=0)")


def test_photo_digits_are_about_balanced(digits: Any) -> None:
    for part, low, high in ((digits.train, 0.09, 0.105), (digits.test, 0.075, 0.115)):
        shares = part.labels.bincount() / len(part)
        assert len(shares) == 10
        assert low < shares.min() < shares.max() < high


def test_photo_digits_share_neither_digits_nor_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """On photographs that are 0 at the left and 100 in the right quarter, all is visible."""
    photo = np.zeros((60, 400, 3), np.uint8)
    photo[:, 300:] = 100
    monkeypatch.setattr(photo_digits_module, "_photos", lambda: [photo, photo])
    split = DATASETS.make("photo_digits").load(Path("nowhere"))
    train = split.train.pixels[:, 0, ::4, ::4]
    assert ((train % 16 == 0) | (train == 255)).all()  # levels of digits on 0
    test = split.test.pixels[:, 0, ::4, ::4].int()
    shown = {tuple(d.flatten().tolist()) for d in train.int()}
    assert len(shown) == 1437
    for sign in (1, -1):  # |100 - level| has two readings; neither is a digit of the training set
        recovered = (100 - sign * test).clamp(0, 255)
        assert not shown & {tuple(d.flatten().tolist()) for d in recovered}
    assert (test == 100).any(dim=(1, 2)).all()  # every test image shows the right quarter
    assert not (train == 100).any()
