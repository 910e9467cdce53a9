"""Small data in the formats in which datasets lie on disk."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from raygrid.core.images import Images
from raygrid.datasets.base import Dataset
from raygrid.datasets.cifar10 import Cifar10


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
