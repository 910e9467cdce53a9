"""SVHN, class folders and images of one's own."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from raygrid.core.errors import DataError, SpecError
from raygrid.datasets import DATASETS
from raygrid.datasets.base import Facts
from raygrid.datasets.svhn import Svhn
from raygrid.engine.grid import plan
from raygrid.storage.store import Store
from raygrid.trials.catalog import Catalog
from raygrid.trials.resolve import resolve
from tests.datasets.on_disk import agree, class_tree, levels, md5_of, noise


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
    assert dataset.describe(tmp_path) == Facts(3, 24, 9, 9, lossy=True)
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
    assert (trial.combination().classes, trial.combination().image_size) == (2, 24)
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
