"""CIFAR's python batches, old and new, and the real CIFAR-10 as JPEG files."""

from __future__ import annotations

import io
import os
import pickle
import runpy
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from raygrid.core.errors import DataError
from raygrid.datasets import DATASETS
from raygrid.datasets.cifar100 import Cifar100
from raygrid.trials.artifacts import BuildContext, DatasetArtifact
from tests.datasets.on_disk import Batches, agree, noise, python2_pickle

ROOT = Path(__file__).parents[2]


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


def test_official_images_become_the_files_of_the_screening_results(
    tmp_path: Path, cifar10: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, name in enumerate(cifar10.pixels):  # images of every class, in no order
        content = python2_pickle(noise(12, 3072, seed=seed), [8, 2, *range(10)], cifar10.key)
        cifar10.put(name, content)
    monkeypatch.setattr(cifar10.cls, "train_size", 60)
    monkeypatch.setattr(cifar10.cls, "test_size", 12)
    script = runpy.run_path(str(ROOT / "experiments" / "benchmarks" / "jpeg_files.py"))
    words = ["jpeg_files.py", "--data", str(tmp_path), "--to", str(tmp_path / "jpeg")]
    monkeypatch.setattr("sys.argv", words)
    script["main"]()
    official = DATASETS.make("cifar10").load(tmp_path).train
    copies = DATASETS.make("cifar10").seen(tmp_path / "jpeg")
    assert (copies.other_files(), copies.other_data()) == ("JPEG files", "")
    found = copies.load(tmp_path / "jpeg").train
    assert (
        found.labels.bincount(minlength=10).tolist()
        == official.labels.bincount(minlength=10).tolist()
    )
    for label in official.labels.unique().tolist():
        wanted = [as_jpeg(image) for image in official.rows(official.labels == label).pixels]
        assert torch.equal(found.rows(found.labels == label).pixels, torch.stack(wanted))
    with pytest.raises(SystemExit):
        script["main"]()  # would mix two sets


def as_jpeg(image: torch.Tensor) -> torch.Tensor:
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG")  # 75 is Pillow's own choice
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)


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
