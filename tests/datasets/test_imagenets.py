"""TinyImageNet, MiniImageNet and ImageNet-100: order of classes, scaling, forms on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raygrid.core.errors import DataError
from raygrid.core.images import fingerprint
from raygrid.datasets import DATASETS
from raygrid.datasets.base import Facts
from raygrid.datasets.tinyimagenet import TinyImageNet
from raygrid.storage.pictures import pictures_in
from tests.datasets.on_disk import agree, flat, levels, write


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes; wnids.txt is not sorted, as in the official archive."""
    monkeypatch.setattr(TinyImageNet, "classes", 2)
    home = tmp_path / "tinyimagenet" / "tiny-imagenet-200"
    home.mkdir(parents=True)
    (home / "wnids.txt").write_text("n02\nn01\n")
    for c, wnid in enumerate(("n01", "n02")):
        for i in (0, 1, 2, 10):
            write(home / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", flat(100 * c + i, 64))
        (home / "train" / wnid / f"{wnid}_boxes.txt").write_text("")
    notes = ""
    for i, wnid in enumerate(["n02", "n01", "n01"]):
        write(home / "val" / "images" / f"val_{i * 5}.JPEG", np.full((64, 64), 50 * i, np.uint8))
        notes += f"val_{i * 5}.JPEG\t{wnid}\t0\t0\t9\t9\n"
    (home / "val" / "val_annotations.txt").write_text(notes)
    return home


def test_tinyimagenet_sorts_paths_as_strings(tmp_path: Path, tiny: Path) -> None:
    dataset = DATASETS.make("tinyimagenet")
    agree(dataset, tmp_path)
    split = dataset.load(tmp_path)
    assert levels(split.train) == [0, 1, 10, 2, 100, 101, 110, 102]
    assert split.train.labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    # val_0, val_10, val_5: the number 10 comes before 5.
    assert levels(split.test) == [0, 100, 50]
    assert split.test.labels.tolist() == [1, 0, 0]
    assert (split.test.pixels[:, 0] == split.test.pixels[:, 2]).all()  # gray files


def test_the_order_is_that_of_the_published_setups(tmp_path: Path) -> None:
    """Known ranks: 13 in a class is image 11, 300 is 369; 5903 of the validation is val_6310."""
    train = [tmp_path / "train" / f"n01_{i}.JPEG" for i in range(500)]
    validation = [tmp_path / "val" / f"val_{i}.JPEG" for i in range(10_000)]
    (tmp_path / "train").mkdir()
    (tmp_path / "val").mkdir()
    for path in (*train, *validation):
        path.touch()
    assert [pictures_in(tmp_path / "train")[rank].stem for rank in (13, 300)] == [
        "n01_11",
        "n01_369",
    ]
    assert pictures_in(tmp_path / "val")[5903].stem == "val_6310"


def test_a_refiled_validation_part_is_read(tmp_path: Path, tiny: Path) -> None:
    images = tiny / "val" / "images"
    for name, wnid in (("val_0", "n02"), ("val_5", "n01"), ("val_10", "n01")):
        (tiny / "val" / wnid).mkdir(exist_ok=True)
        (images / f"{name}.JPEG").rename(tiny / "val" / wnid / f"{name}.JPEG")
    images.rmdir()
    test = DATASETS.make("tinyimagenet").load(tmp_path).test
    assert test.labels.tolist() == [0, 0, 1]


def test_faults_of_tinyimagenet_are_named(tmp_path: Path, tiny: Path) -> None:
    dataset = DATASETS.make("tinyimagenet")
    (tiny / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn01\n")
    with pytest.raises(DataError, match=r"val_annotations.txt does not label every image"):
        dataset.load(tmp_path)
    (tiny / "wnids.txt").write_text("n01\n")
    with pytest.raises(DataError, match=r"wnids.txt has 1 classes, not 2"):
        dataset.source(tmp_path)


WNIDS = [f"n{i:02d}" for i in range(100)]


def mini_csv(home: Path) -> None:
    lists = {"train": WNIDS[:64], "val": WNIDS[64:80], "test": WNIDS[80:]}
    for part, names in lists.items():
        rows = [f"{w}{i}.jpg,{w}" for w in reversed(names) for i in range(5)]
        home.mkdir(parents=True, exist_ok=True)
        (home / f"{part}.csv").write_text("filename,label\n" + "\n".join(rows) + "\n")
    for c, wnid in enumerate(WNIDS):
        for i in range(5):
            write(home / "images" / f"{wnid}{i}.jpg", flat(2 * c + i % 2, 20))


def mini_parts(home: Path) -> None:
    lists = {"train": WNIDS[:64], "val": WNIDS[64:80], "test": WNIDS[80:]}
    for part, names in lists.items():
        for wnid in names:
            for i in range(5):
                level = 2 * WNIDS.index(wnid) + i % 2
                write(home / part / wnid / f"{wnid}{i}.jpg", flat(level, 20))


def mini_flat(home: Path) -> None:
    for c, wnid in enumerate(WNIDS):
        for i in range(5):
            write(home / wnid / f"{wnid}{i}.jpg", flat(2 * c + i % 2, 20))


@pytest.mark.parametrize("make", [mini_csv, mini_parts, mini_flat])
def test_all_forms_of_miniimagenet_are_the_same_split(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "miniimagenet")
    dataset = DATASETS.make("miniimagenet")
    agree(dataset, tmp_path)
    split = dataset.load(tmp_path)
    assert split.train.labels.bincount().tolist() == [4] * 100
    assert split.test.labels.bincount().tolist() == [1] * 100
    assert [level // 2 for level in levels(split.train)] == split.train.labels.tolist()
    both = sorted(levels(split.train) + levels(split.test))
    assert both == sorted(2 * c + i % 2 for c in range(100) for i in range(5))
    assert fingerprint(split.train.pixels) == "b644f11195f3bc25ffece6540b345c72"


def test_images_are_scaled_by_the_shorter_side_and_cut_in_the_center(tmp_path: Path) -> None:
    mini_flat(tmp_path / "miniimagenet")
    wide = np.zeros((128, 384, 3), np.uint8)
    wide[:, 128:256] = 200  # the middle third
    wide[:, 384 - 40 :] = 90
    for i in range(5):
        path = tmp_path / "miniimagenet" / "n00" / f"n00{i}.jpg"
        Image.fromarray(wide).save(path.with_suffix(".png"))
        path.unlink()
    train = DATASETS.make("miniimagenet").load(tmp_path).train
    assert train.pixels.shape[-2:] == (64, 64)
    inner = train.pixels[0, :, :, 2:-2]
    assert inner.min() == 200
    assert inner.max() == 200


def test_imagenet100_takes_the_first_wnids_or_the_listed_ones(tmp_path: Path) -> None:
    home = tmp_path / "imagenet100"
    names = [f"n{i:03d}" for i in range(102)]
    for part, each in (("train", 2), ("val", 1)):
        for i, name in enumerate(names):
            for j in range(each):
                write(home / part / name / f"{j}.JPEG", flat(2 * i + j, 16))
    dataset = DATASETS.make("imagenet100")
    agree(dataset, tmp_path)
    assert dataset.describe(tmp_path) == Facts(100, 224, 200, 100, lossy=True)
    train = dataset.load(tmp_path).train
    assert train.pixels.shape == (200, 3, 224, 224)
    assert levels(train)[-1] == 2 * 99 + 1
    few = DATASETS.make("imagenet100(test_per_class=40, train_per_class=200)")
    assert few.nominal == Facts(100, 224, 20_000, 4_000, looked_at=False), "APBench's share"
    assert DATASETS.make("imagenet100(test_per_class=99)").nominal == dataset.nominal
    one = DATASETS.make("imagenet100(train_per_class=1)")
    assert levels(one.load(tmp_path).train) == [2 * i for i in range(100)]
    (home / "classes.txt").write_text("\n".join(names[2:]))
    assert levels(one.load(tmp_path).train) == [2 * i for i in range(2, 102)]
    (home / "classes.txt").write_text("n001\n")
    with pytest.raises(DataError, match=r"classes.txt has 1 classes"):
        dataset.source(tmp_path)
