"""Faults of data on disk, each with its path and its remedy."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from raygrid.core.errors import DataError, SpecError
from raygrid.core.images import Images
from raygrid.datasets import DATASETS
from raygrid.datasets.base import Dataset, Split
from raygrid.engine.grid import plan
from raygrid.storage.store import DATA_FILE, Bundle, Store
from raygrid.trials.artifacts import Artifact, DatasetArtifact
from raygrid.trials.catalog import Catalog
from tests.datasets.on_disk import class_tree, flat, noise, write


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


class Stated(Dataset):
    """Two classes of 16 pixels, 60 and 20 images, which it need not load."""

    id = "stated"
    classes, image_size, train_size, test_size = 2, 16, 60, 20
    parts: ClassVar[tuple[Images, Images]]

    def source(self, root: Path) -> str:
        return "here"

    def load(self, root: Path) -> Split:
        return Split(*self.parts)


def gray(n: int, height: int = 16, width: int = 16, channels: int = 3, classes: int = 2) -> Images:
    pixels = torch.full((n, channels, height, width), 128, dtype=torch.uint8)
    return Images(pixels, torch.arange(n) % classes, classes)


def labeled(label: int, n: int) -> Images:
    return Images(gray(n).pixels, torch.full((n,), label), 2)


@pytest.mark.parametrize(
    ("train", "test", "says"),
    [
        (gray(90), gray(20), "train: 90 images, stated are 60"),
        (gray(60), gray(10), "test: 10 images, stated are 20"),
        (
            gray(60, classes=5),
            gray(20),
            "train: 5 classes, stated are 2; train: label 4, .* 0 to 1",
        ),
        (gray(60, 24, 24), gray(20), "train: images are 3 x 24 x 24, stated are 3 x 16 x 16"),
        (gray(60), gray(20, 16, 20), "test: images are 3 x 16 x 20, stated are 3 x 16 x 16"),
        (gray(60, channels=1), gray(20), "train: images are 1 x 16 x 16"),
        (gray(60), labeled(2, 20), "test: label 2, those of 2 classes are 0 to 1"),
        (labeled(-1, 60), gray(20), "train: label -1, those of 2 classes are 0 to 1"),
        (gray(60), gray(0), "test: 0 images, stated are 20; test: it is empty"),
    ],
)
def test_a_dataset_that_loads_other_data_than_it_states_is_refused(
    tmp_path: Path, catalog: Catalog, train: Images, test: Images, says: str
) -> None:
    dataset = type("Odd", (Stated,), {"parts": (train, test)})()
    with pytest.raises(DataError, match=f"stated loads other data than it states: {says}"):
        catalog.content(catalog.artifact(dataset, 0.0))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (None, "a value of type NoneType"),
        ((gray(60), gray(20)), "a value of type tuple"),
        (Split(gray(60), gray(20).pixels), "a Split of Images and Tensor"),  # type: ignore[arg-type]
    ],
)
def test_a_dataset_that_loads_no_split_of_images_is_told_what_one_is(
    tmp_path: Path, catalog: Catalog, given: Any, says: str
) -> None:
    dataset = type("Odd", (Stated,), {"load": lambda self, root: given})()
    with pytest.raises(DataError) as caught:
        catalog.content(catalog.artifact(dataset, 0.0))
    allowed = "raygrid.Split(train=Images(...), test=Images(...))"
    assert str(caught.value) == f"load of stated returns {says}, allowed is {allowed}"


@pytest.mark.parametrize(
    ("raised", "says"),
    [
        (FileNotFoundError(2, "No such file", "my.npz"), "FileNotFoundError: .*'my.npz'"),
        (ZeroDivisionError("division by zero\nsecond line"), "ZeroDivisionError: division by zero"),
    ],
)
def test_whatever_ends_the_loading_names_the_dataset_and_keeps_its_cause(
    tmp_path: Path, raised: Exception, says: str
) -> None:
    def load(self: Dataset, root: Path) -> Split:
        raise raised

    with pytest.raises(DataError, match=f"stated cannot be loaded from .*: {says}$") as caught:
        type("Odd", (Stated,), {"load": load})().loaded(tmp_path)
    assert caught.value.__cause__ is raised


@pytest.mark.parametrize("raised", [DataError("a.png is damaged"), MemoryError("no room")])
def test_what_names_its_own_remedy_is_not_told_again(tmp_path: Path, raised: Exception) -> None:
    def load(self: Dataset, root: Path) -> Split:
        raise raised

    with pytest.raises(type(raised)) as caught:
        type("Odd", (Stated,), {"load": load})().loaded(tmp_path)
    assert caught.value is raised


def test_sizes_that_nobody_knows_exactly_may_be_others(tmp_path: Path) -> None:
    split = Split(gray(90), gray(10))
    assert Stated().checked(split) is split


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
    artifact = DatasetArtifact(dataset.seen(tmp_path / "data"), dataset.source(tmp_path / "data"))
    first = fetch(artifact)
    path = store.path("dataset", artifact.key) / DATA_FILE
    path.write_bytes(path.read_bytes()[:-5])
    assert store.get("dataset", artifact.key) is None
    again = fetch(artifact)
    assert torch.equal(again.tensors["train_pixels"], first.tensors["train_pixels"])
    assert store.get("dataset", artifact.key) is not None
