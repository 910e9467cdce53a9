"""Datasets: every form on disk gives the images in the order that the sources count on."""

from __future__ import annotations

import hashlib
import http.server
import io
import os
import pickle
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from raygrid.core.errors import DataError, SpecError
from raygrid.core.images import Images, fingerprint
from raygrid.datasets import DATASETS
from raygrid.datasets import photo_digits as photo_digits_module
from raygrid.datasets.base import Dataset, Facts
from raygrid.datasets.cifar10 import Cifar10
from raygrid.datasets.cifar100 import Cifar100
from raygrid.datasets.svhn import Svhn
from raygrid.datasets.tinyimagenet import TinyImageNet
from raygrid.engine.grid import plan
from raygrid.storage.pictures import pictures_in
from raygrid.storage.store import DATA, Bundle, Store
from raygrid.trials.artifacts import Artifact, BuildContext, DatasetArtifact
from raygrid.trials.catalog import Catalog
from raygrid.trials.resolve import resolve


def noise(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write(path: Path, pixels: Any) -> Path:
    """An image file from uint8 (H, W, 3) or (H, W)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def flat(value: int, side: int = 32) -> Any:
    """An image of one gray level, which survives JPEG and scaling."""
    return np.full((side, side, 3), value, np.uint8)


def class_tree(place: Path, names: list[str], each: int = 2, side: int = 32) -> None:
    """Class folders; image j of class i in part p has the level 10 * i + 2 * j + p."""
    for p, part in enumerate(("train", "test")):
        for i, name in enumerate(names):
            for j in range(each):
                suffix = ("png", "jpg", "JPEG")[j % 3]
                write(place / part / name / f"{j}.{suffix}", flat((10 * i + 2 * j + p) % 256, side))


def levels(images: Images) -> list[int]:
    """The gray level of each image at its center."""
    side = images.pixels.shape[-1]
    return [int(v) for v in images.pixels[:, 0, side // 2, side // 2]]


def md5_of(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def agree(dataset: Dataset, root: Path) -> None:
    """What was described is what is loaded."""
    split, facts = dataset.load(root), dataset.describe(root)
    assert (len(split.train), len(split.test)) == (facts.train_size, facts.test_size)
    assert split.train.shape == split.test.shape == (3, facts.image_size, facts.image_size)
    assert split.train.classes == split.test.classes == facts.classes
    for part in (split.train, split.test):
        assert 0 <= int(part.labels.min()) <= int(part.labels.max()) < facts.classes
    assert dataset.seen(root) == dataset
    assert dataset.seen(root).nominal == facts


# The python batches of CIFAR


def python2_pickle(data: Any, labels: list[int], key: str) -> bytes:
    """A batch as Python 2 wrote it, byte by byte: protocol 2, text as byte strings."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    def number(value: int) -> bytes:
        return b"J" + value.to_bytes(4, "little", signed=True)

    rows, columns = data.shape
    raw = data.tobytes()
    dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R"
    dtype += b"(K\x03" + text(b"|") + b"NNN" + number(-1) + number(-1) + b"K\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b")
    array += b"\x87R(K\x01" + number(rows) + number(columns) + b"\x86" + dtype + b"\x89"
    array += b"T" + len(raw).to_bytes(4, "little") + raw + b"tb"
    listed = b"](" + b"".join(map(number, labels)) + b"e"
    pairs = text(b"data") + array + text(key.encode()) + listed
    return b"\x80\x02}(" + pairs + text(b"batch_label") + text(b"batch 1 of 5") + b"u."


class Batches:
    """Small batch files that pass for official ones."""

    def __init__(self, place: Path, cls: type[Any], patch: pytest.MonkeyPatch) -> None:
        self.place, self.cls, self.patch = place, cls, patch
        self.key = "labels" if cls is Cifar10 else "fine_labels"
        place.mkdir(parents=True)
        self.pixels, self.labels = {}, {}
        for seed, name in enumerate((*cls.train_files, *cls.test_files)):
            self.pixels[name] = noise(4, 3072, seed=seed)
            self.labels[name] = [(seed + i) % cls.classes for i in range(4)]
            self.put(name, python2_pickle(self.pixels[name], self.labels[name], self.key))
        patch.setattr(cls, "train_size", 4 * len(cls.train_files))
        patch.setattr(cls, "test_size", 4)

    def put(self, name: str, content: bytes) -> None:
        """Write a file and make its md5 the official one."""
        (self.place / name).write_bytes(content)
        part = "train_files" if name in self.cls.train_files else "test_files"
        md5 = hashlib.md5(content).hexdigest()
        self.patch.setattr(self.cls, part, {**getattr(self.cls, part), name: md5})


@pytest.fixture
def cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Batches:
    return Batches(tmp_path / "cifar10" / "cifar-10-batches-py", Cifar10, monkeypatch)


def test_cifar10_keeps_the_order_of_the_batches(tmp_path: Path, cifar10: Batches) -> None:
    dataset = DATASETS.make("cifar10")
    agree(dataset, tmp_path)
    split = dataset.load(tmp_path)
    names = [f"data_batch_{i}" for i in range(1, 6)]
    assert split.train.labels.tolist() == [y for name in names for y in cifar10.labels[name]]
    rows = np.concatenate([cifar10.pixels[name] for name in names])
    for i, channel, row, column in ((0, 0, 0, 0), (7, 1, 2, 3), (19, 2, 31, 30)):
        value = rows[i, 1024 * channel + 32 * row + column]
        assert split.train.pixels[i, channel, row, column] == int(value)
    assert split.test.labels.tolist() == cifar10.labels["test_batch"]


def test_cifar10_lies_beside_other_data_too(tmp_path: Path, cifar10: Batches) -> None:
    """torchvision unpacks into the data root itself."""
    cifar10.place.rename(tmp_path / "cifar-10-batches-py")
    assert len(DATASETS.make("cifar10").load(tmp_path).train) == 20


def test_cifar100_has_the_fine_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = Batches(tmp_path / "cifar100" / "cifar-100-python", Cifar100, monkeypatch)
    agree(DATASETS.make("cifar100"), tmp_path)
    split = DATASETS.make("cifar100").load(tmp_path)
    assert split.train.labels.tolist() == files.labels["train"]


def test_batches_of_today_are_read_as_well(tmp_path: Path, cifar10: Batches) -> None:
    batch = {b"data": cifar10.pixels["test_batch"], b"labels": [1, 2, 3, 4]}
    cifar10.put("test_batch", pickle.dumps(batch))
    assert DATASETS.make("cifar10").load(tmp_path).test.labels.tolist() == [1, 2, 3, 4]


class Touch:
    """Unpickled by the standard library, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


def test_a_batch_that_brings_code_is_refused(tmp_path: Path, cifar10: Batches) -> None:
    content = pickle.dumps({b"data": Touch(tmp_path / "owned"), b"labels": []})
    cifar10.put("data_batch_2", content)
    with pytest.raises(DataError, match=r"data_batch_2 is no batch file \(refuses posix.mkdir"):
        DATASETS.make("cifar10").load(tmp_path)
    assert not (tmp_path / "owned").exists()
    pickle.loads(content)
    assert (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "data_batch_3 is damaged: its md5"),
        (lambda path: path.unlink(), "data_batch_3 cannot be read: No such file"),
    ],
)
def test_a_damaged_batch_is_named(
    tmp_path: Path, cifar10: Batches, damage: Callable[[Path], Any], says: str
) -> None:
    damage(cifar10.place / "data_batch_3")
    with pytest.raises(DataError, match=says):
        DATASETS.make("cifar10").load(tmp_path)


# SVHN


def test_svhn_has_zero_for_ten_and_stands_upright(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels, labels = noise(32, 32, 3, 6), np.array([[1], [10], [9], [2], [10], [5]], np.uint8)
    (tmp_path / "svhn").mkdir()
    for name in Svhn.files:
        savemat(tmp_path / "svhn" / name, {"X": pixels, "y": labels})
    md5s = {name: md5_of(tmp_path / "svhn" / name) for name in Svhn.files}
    monkeypatch.setattr(Svhn, "files", md5s)
    monkeypatch.setattr(Svhn, "train_size", 6)
    monkeypatch.setattr(Svhn, "test_size", 6)
    dataset = DATASETS.make("svhn")
    agree(dataset, tmp_path)
    train = dataset.load(tmp_path).train
    assert train.labels.tolist() == [1, 0, 9, 2, 0, 5]
    assert train.pixels[4, 2, 30, 7] == int(pixels[30, 7, 2, 4])
    (tmp_path / "svhn" / "test_32x32.mat").write_bytes(b"MATLAB 5.0 but no more")
    with pytest.raises(DataError, match=r"test_32x32.mat is damaged"):
        dataset.load(tmp_path)
    monkeypatch.setattr(Svhn, "files", {n: md5_of(tmp_path / "svhn" / n) for n in Svhn.files})
    with pytest.raises(DataError, match=r"test_32x32.mat is no SVHN file"):
        dataset.load(tmp_path)


# TinyImageNet


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


# MiniImageNet

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


# ImageNet-100


def test_imagenet100_takes_the_first_wnids_or_the_listed_ones(tmp_path: Path) -> None:
    home = tmp_path / "imagenet100"
    names = [f"n{i:03d}" for i in range(102)]
    for part, each in (("train", 2), ("val", 1)):
        for i, name in enumerate(names):
            for j in range(each):
                write(home / part / name / f"{j}.JPEG", flat(2 * i + j, 16))
    dataset = DATASETS.make("imagenet100")
    agree(dataset, tmp_path)
    assert dataset.describe(tmp_path) == Facts(100, 224, 200, 100)
    train = dataset.load(tmp_path).train
    assert train.pixels.shape == (200, 3, 224, 224)
    assert levels(train)[-1] == 2 * 99 + 1
    few = DATASETS.make("imagenet100(test_per_class=40, train_per_class=200)")
    assert few.nominal == Facts(100, 224, 20_000, 4_000), "APBench's share"
    assert DATASETS.make("imagenet100(test_per_class=99)").nominal == dataset.nominal
    one = DATASETS.make("imagenet100(train_per_class=1)")
    assert levels(one.load(tmp_path).train) == [2 * i for i in range(100)]
    (home / "classes.txt").write_text("\n".join(names[2:]))
    assert levels(one.load(tmp_path).train) == [2 * i for i in range(2, 102)]
    (home / "classes.txt").write_text("n001\n")
    with pytest.raises(DataError, match=r"classes.txt has 1 classes"):
        dataset.source(tmp_path)


# Class folders


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn", "tinyimagenet", "imagenet100"])
def test_every_dataset_is_read_from_class_folders(tmp_path: Path, name: str) -> None:
    dataset = DATASETS.make(name)
    names = [f"c{i:03d}" for i in range(dataset.classes)]
    side = 16 if name == "imagenet100" else dataset.image_size
    class_tree(tmp_path / name, names, each=1, side=side)
    agree(dataset, tmp_path)
    split = dataset.load(tmp_path)
    assert split.train.labels.tolist() == list(range(dataset.classes))
    assert levels(split.train) == [10 * i % 256 for i in range(dataset.classes)]


def test_own_images_are_found_by_looking(tmp_path: Path) -> None:
    class_tree(tmp_path / "pets", ["cat", "dog", "eel"], each=3, side=24)
    dataset = DATASETS.make("folder(name=pets, flip=false)")
    agree(dataset, tmp_path)
    assert dataset.describe(tmp_path) == Facts(3, 24, 9, 9)
    assert dataset.augmentation == "crop"
    split = dataset.load(tmp_path)
    # by name: 0.png, 1.jpg, 2.JPEG
    assert levels(split.train) == [0, 2, 4, 10, 12, 14, 20, 22, 24]
    assert levels(split.test) == [1, 3, 5, 11, 13, 15, 21, 23, 25]
    small = DATASETS.make("folder(name=pets, size=16)")
    agree(small, tmp_path)
    assert small.image_size == small.seen(tmp_path).image_size == 16


def test_a_trial_on_own_images_knows_their_sizes(tmp_path: Path) -> None:
    class_tree(tmp_path / "data" / "pets", ["cat", "dog"], each=3, side=24)
    catalog = Catalog(Store(tmp_path / "store"), tmp_path / "data")
    spec = "folder(name=pets)/lsp/standard/small_cnn/supervised/quick(validation=0.34)/0"
    trial = resolve(spec, catalog)
    assert (trial.cell().classes, trial.cell().image_size) == (2, 24)
    assert trial.data.dataset.train_size == 6
    assert trial.data.train_size == trial.poison.shards == 4
    bundle = catalog.store.get("dataset", trial.data.key)
    assert bundle is not None
    assert len(bundle.tensors["train_labels"]) == 4
    again = pickle.loads(pickle.dumps(trial))
    assert (again.key, again.dataset.image_size) == (trial.key, 24)
    assert str(trial.spec) == spec


def test_files_are_looked_at_once_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class_tree(tmp_path / "images", ["cat", "dog"])
    catalog = Catalog(Store(tmp_path / "store"), tmp_path)
    looks = []
    find = type(DATASETS.make("folder")).find
    monkeypatch.setattr(
        "raygrid.datasets.folder.Folder.find",
        lambda self, root: looks.append(1) or find(self, root),
    )
    specs = [f"folder/lsp/standard/small_cnn/supervised/quick/{seed}" for seed in range(5)]
    assert len(plan(specs, catalog).trials) == 5
    assert len(looks) == 3  # facts, source, load


@pytest.mark.parametrize("part", ["folder(name=..)", "folder(name=a/b)", "folder(size=4)"])
def test_folder_refuses_bad_parameters(part: str) -> None:
    with pytest.raises(SpecError, match=r"allowed (is|are)"):
        DATASETS.make(part)


# Faults


def one_class(home: Path) -> None:
    class_tree(home, ["cat"])


def mixed_sizes(home: Path) -> None:
    class_tree(home, ["cat", "dog"])
    write(home / "train" / "dog" / "1.jpg", flat(0, 40))


def truncated(home: Path) -> None:
    class_tree(home, ["cat", "dog"])
    path = write(home / "test" / "cat" / "0.png", noise(32, 32, 3))
    path.write_bytes(path.read_bytes()[:-900])


def no_image(home: Path) -> None:
    class_tree(home, ["cat", "dog"])
    (home / "train" / "dog" / "1.jpg").write_text("404 not found")


def empty_class(home: Path) -> None:
    class_tree(home, ["cat", "dog"])
    (home / "train" / "eel").mkdir()


def no_test(home: Path) -> None:
    class_tree(home, ["cat", "dog"])
    (home / "test").rename(home / "elsewhere")


def no_train(home: Path) -> None:
    class_tree(home, ["cat", "dog"])
    (home / "train").rename(home / "elsewhere")


def other_classes(home: Path) -> None:
    class_tree(home, ["cat", "dog"])
    (home / "test" / "dog").rename(home / "test" / "eel")


def oblong(home: Path) -> None:
    class_tree(home, ["cat", "dog"])
    write(home / "train" / "cat" / "0.png", noise(32, 48, 3))


FAULTS: list[tuple[Callable[[Path], Any], str]] = [
    (lambda home: None, "images does not exist"),
    (lambda home: home.mkdir(), "images is empty"),
    (one_class, "train has 1 class folders"),
    (mixed_sizes, r"dog/1.jpg has 40x40 pixels, expected 32x32"),
    (truncated, r"test/cat/0.png cannot be read \(.*truncated.*\); replace"),
    (no_image, r"train/dog/1.jpg cannot be read"),
    (empty_class, r"train/eel holds no image"),
    (no_test, "the test part is missing"),
    (no_train, "the train part is missing"),
    (other_classes, "differ in the classes dog, eel"),
    (oblong, r"cat/0.png has 48x32 pixels; set folder\(size="),
]


@pytest.mark.parametrize(("make", "says"), FAULTS, ids=[says[:25] for _, says in FAULTS])
def test_every_fault_names_the_path_and_the_remedy(
    tmp_path: Path, make: Callable[[Path], Any], says: str
) -> None:
    make(tmp_path / "images")
    dataset = DATASETS.make("folder")
    with pytest.raises(DataError, match=says) as caught:
        dataset.load(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_missing_dataset_is_one_fault_of_the_plan(catalog: Catalog) -> None:
    with pytest.raises(SpecError, match="no cifar10 in"):
        plan(["cifar10/clean/none/small_cnn/supervised/quick/0"], catalog)


def test_a_few_classes_are_not_cifar10(tmp_path: Path) -> None:
    class_tree(tmp_path / "cifar10", ["cat", "dog"])
    with pytest.raises(DataError, match=r"has 2 classes, cifar10 has 10.*folder\(name="):
        DATASETS.make("cifar10").source(tmp_path)


def test_the_source_changes_with_the_files(tmp_path: Path) -> None:
    class_tree(tmp_path / "images", ["cat", "dog"])
    dataset = DATASETS.make("folder")
    before = dataset.source(tmp_path)
    assert dataset.source(tmp_path) == before
    path = tmp_path / "images" / "train" / "cat" / "0.png"
    os.utime(path, (1, 1))
    touched = dataset.source(tmp_path)
    path.rename(path.with_name("9.png"))
    assert len({before, touched, dataset.source(tmp_path)}) == 3


def test_a_damaged_cache_entry_is_made_again(
    tmp_path: Path, store: Store, fetch: Callable[[Artifact], Bundle]
) -> None:
    class_tree(tmp_path / "data" / "images", ["cat", "dog"])
    dataset = DATASETS.make("folder")
    artifact = DatasetArtifact(dataset, dataset.source(tmp_path / "data"))
    first = fetch(artifact)
    path = store.path("dataset", artifact.key) / DATA
    path.write_bytes(path.read_bytes()[:-5])
    assert store.get("dataset", artifact.key) is None
    again = fetch(artifact)
    assert torch.equal(again.tensors["train_pixels"], first.tensors["train_pixels"])
    assert store.get("dataset", artifact.key) is not None


# Archives and downloads


def pack(folder: Path, archive: Path) -> None:
    """A tar or zip archive of a folder, under its name."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as packed:
            for file in sorted(f for f in folder.rglob("*") if f.is_file()):
                packed.write(file, f"{folder.name}/{file.relative_to(folder)}")
    else:
        with tarfile.open(archive, "w:gz") as tape:
            tape.add(folder, folder.name)


@pytest.mark.parametrize("name", ["data.tar.gz", "data.zip"])
def test_an_archive_of_class_folders_is_read_where_it_lies(tmp_path: Path, name: str) -> None:
    class_tree(tmp_path / "made" / "cifar10", list("abcdefghij"))
    plain = DATASETS.make("cifar10").load(tmp_path / "made")
    home = tmp_path / "data" / "cifar10"
    home.mkdir(parents=True)
    pack(tmp_path / "made" / "cifar10", home / name)
    dataset = DATASETS.make("cifar10")
    agree(dataset, tmp_path / "data")
    assert torch.equal(dataset.load(tmp_path / "data").train.pixels, plain.train.pixels)
    assert [file.name for file in home.iterdir()] == [name]


def test_an_official_archive_is_read_where_it_lies(tmp_path: Path, cifar10: Batches) -> None:
    pack(cifar10.place, tmp_path / "cifar10" / "cifar-10-python.tar.gz")
    plain = DATASETS.make("cifar10").load(tmp_path)
    for file in cifar10.place.iterdir():
        file.unlink()
    cifar10.place.rmdir()
    agree(DATASETS.make("cifar10"), tmp_path)
    assert torch.equal(DATASETS.make("cifar10").load(tmp_path).train.pixels, plain.train.pixels)


@pytest.mark.parametrize("kind", ["up", "absolute", "link"])
def test_an_archive_cannot_write_elsewhere(tmp_path: Path, kind: str) -> None:
    home = tmp_path / "data" / "cifar10"
    home.mkdir(parents=True)
    with tarfile.open(home / "evil.tar.gz", "w:gz") as tape:
        names = {"up": "../../evil", "absolute": str(tmp_path / "evil"), "link": "train"}
        member = tarfile.TarInfo(names[kind])
        if kind == "link":
            member.type, member.linkname = tarfile.SYMTYPE, str(tmp_path)
            tape.addfile(member)
            member = tarfile.TarInfo("train/evil")
        member.size = 4
        tape.addfile(member, io.BytesIO(b"evil"))
    with pytest.raises(DataError, match=r"evil.tar.gz (cannot be unpacked|holds no cifar10)"):
        DATASETS.make("cifar10").load(tmp_path / "data")
    assert not list(tmp_path.rglob("evil"))


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    class_tree(tmp_path / "cifar10", list("abcdefghij"), each=1)
    home = tmp_path / "data" / "cifar10"
    home.mkdir(parents=True)
    pack(tmp_path / "cifar10", home / "x.tar.gz")
    content = (home / "x.tar.gz").read_bytes()
    (home / "x.tar.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"x.tar.gz cannot be"):
        DATASETS.make("cifar10").load(tmp_path / "data")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def site(folder: Path) -> Iterator[str]:
    """A web server over a folder on the loopback interface."""
    handler = partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_download_gets_checks_and_unpacks(
    tmp_path: Path, cifar10: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    web, root = tmp_path / "web", tmp_path / "root"
    web.mkdir()
    pack(cifar10.place, web / "cifar-10-python.tar.gz")
    dataset = DATASETS.make("cifar10")
    with site(web) as address:
        monkeypatch.setattr(Cifar10, "url", f"{address}/cifar-10-python.tar.gz")
        with pytest.raises(DataError, match=r"cannot download .*cifar-10-python.tar.gz"):
            dataset.download(root)  # the md5 is not that of the official archive
        assert not list((root / "cifar10").iterdir())
        monkeypatch.setattr(Cifar10, "md5", md5_of(web / "cifar-10-python.tar.gz"))
        dataset.download(root)
    agree(dataset, root)
    assert [f.name for f in (root / "cifar10").iterdir()] == ["cifar-10-batches-py"]


def test_download_without_network_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cifar10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    with pytest.raises(DataError, match=r"cannot download http://127.0.0.1:9.*by hand"):
        DATASETS.make("cifar10").download(tmp_path)
    for name in ("miniimagenet", "imagenet100", "folder"):
        with pytest.raises(DataError, match="cannot be downloaded; put its files under"):
            DATASETS.make(name).download(tmp_path)


# photo_digits


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


# The real CIFAR-10 as JPEG files


def test_real_images_come_as_class_folders(tmp_path: Path, shared: Path) -> None:
    """The first images of the archive, unpacked safely into a folder of class folders."""
    with tarfile.open(shared / "data" / "cifar10-jpeg75.tar.gz") as tape:
        first = (m for m in tape if m.isfile() and int(Path(m.name).stem) < 5)
        tape.extractall(tmp_path / "cifar10", first, filter="data")
    dataset = DATASETS.make("cifar10")
    agree(dataset, tmp_path)
    split = dataset.load(tmp_path)
    assert split.train.labels.bincount().tolist() == [5] * 10
    ship = split.train.rows(split.train.labels == 8).floats()
    frog = split.train.rows(split.train.labels == 6).floats()
    assert ship[:, 2].mean() - ship[:, 0].mean() > frog[:, 2].mean() - frog[:, 0].mean()


@pytest.mark.slow
def test_all_real_images_are_read_from_the_archive(
    tmp_path: Path, shared: Path, record_property: Callable[[str, object], None]
) -> None:
    (tmp_path / "cifar10").mkdir()
    archive = tmp_path / "cifar10" / "cifar10-jpeg75.tar.gz"
    archive.symlink_to(shared / "data" / "cifar10-jpeg75.tar.gz")
    dataset = DATASETS.make("cifar10")
    artifact = DatasetArtifact(dataset.seen(tmp_path), dataset.source(tmp_path))
    started = time.perf_counter()
    bundle = artifact.make([], BuildContext(torch.device("cpu"), tmp_path))
    seconds = time.perf_counter() - started
    record_property("seconds", seconds)
    print(f"60,000 JPEG files from the archive in {seconds:.1f} s")
    assert bundle.tensors["train_labels"].bincount().tolist() == [5000] * 10
    assert bundle.tensors["test_labels"].bincount().tolist() == [1000] * 10
    mean = bundle.tensors["train_pixels"].float().mean(dim=(0, 2, 3)) / 255
    assert (mean - torch.tensor(dataset.mean)).abs().max() < 0.002
