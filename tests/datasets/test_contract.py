"""What every dataset must hold, by being registered: those that need no file, here and now."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from raygrid.core.errors import DataError, SpecError
from raygrid.datasets import DATASETS
from raygrid.nn import augment
from tests import conftest

NOWHERE = Path("no such folder")


def needs_no_file(name: str) -> bool:
    try:
        DATASETS.tiny(name).source(NOWHERE)
    except (DataError, SpecError):
        return False
    return True


EMBEDDED = [n for n in DATASETS if n not in conftest.TOYS and needs_no_file(n)]
ON_DISK = [n for n in DATASETS if n not in conftest.TOYS and not needs_no_file(n)]


def test_the_embedded_dataset_needs_no_file() -> None:
    assert "photo_digits" in EMBEDDED
    assert "cifar10" in ON_DISK


@pytest.mark.parametrize("name", EMBEDDED)
def test_what_it_says_is_what_it_loads(name: str) -> None:
    dataset = DATASETS.tiny(name)
    split, facts = dataset.load(NOWHERE), dataset.describe(NOWHERE)
    assert (len(split.train), len(split.test)) == (facts.train_size, facts.test_size)
    for part in (split.train, split.test):
        assert part.pixels.dtype == torch.uint8
        assert part.pixels.shape[1:] == (3, facts.image_size, facts.image_size)
        assert part.classes == facts.classes
        assert part.labels.dtype == torch.int64
        assert part.labels.unique().tolist() == list(range(facts.classes)), "a class is missing"
    again = dataset.load(NOWHERE)
    assert torch.equal(again.train.pixels, split.train.pixels)
    assert torch.equal(again.test.labels, split.test.labels)
    assert torch.equal(again.test.pixels, split.test.pixels)


@pytest.mark.parametrize("name", ON_DISK)
def test_what_is_not_there_is_named(name: str, tmp_path: Path) -> None:
    whole = name.removesuffix("_first").removesuffix("_last")  # a half is read from the whole
    with pytest.raises((DataError, SpecError), match=whole):
        DATASETS.tiny(name).source(tmp_path)


@pytest.mark.parametrize("name", DATASETS)
def test_its_augmentation_and_pretraining_exist(name: str) -> None:
    kind = DATASETS[name]
    augment.flips(kind.augmentation)
    assert kind.pretraining in ("", *DATASETS)
    assert all(0 <= mean <= 1 for mean in kind.mean)
    assert all(0 < std <= 1 for std in kind.std)
