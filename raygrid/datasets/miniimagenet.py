"""MiniImageNet as a classification set."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from raygrid.core.errors import DataError
from raygrid.core.lazy import np
from raygrid.core.registry import Card
from raygrid.core.seeds import derive_seed
from raygrid.datasets.base import DATASETS
from raygrid.datasets.common.decoding import Resizing
from raygrid.datasets.common.files import FileDataset
from raygrid.datasets.common.holdings import (
    Holding,
    ImageFiles,
    Listing,
    class_folders,
    listing,
    spoken,
)
from raygrid.storage.pictures import subfolders

SPLITS = ("train", "val", "test")


@DATASETS.register("miniimagenet")
@dataclass(frozen=True, kw_only=True)
class MiniImageNet(FileDataset):
    """100 classes of 600 images, cut to 64x64; 480 images a class train, 120 test.

    The few-shot parts have different classes, so they are put together and split again by a
    fixed seed. Forms: `images/` with `train.csv`, `val.csv`, `test.csv` (columns filename, label);
    class folders under `train`, `val`, `test`; 100 class folders side by side.
    """

    card = Card(
        paper="Vinyals et al. 2016, Matching Networks for One Shot Learning; lists by Ravi and "
        "Larochelle 2017",
        notes="the poisoning source has a random balanced 48k/12k split and images cropped to 64, "
        "both unpublished; here the shorter side is scaled to 64 and the center cut out. Another "
        "source has 84 pixels and the first 500 images of a class for training",
    )
    classes: ClassVar[int] = 100
    image_size: ClassVar[int] = 64
    train_size: ClassVar[int] = 48_000
    test_size: ClassVar[int] = 12_000
    mean: ClassVar[tuple[float, float, float]] = (0.485, 0.456, 0.406)
    std: ClassVar[tuple[float, float, float]] = (0.229, 0.224, 0.225)

    @property
    def fit(self) -> Resizing:
        return Resizing(self.image_size, resize=self.image_size)

    def class_folders(self, place: Path) -> Holding | None:
        by_class = _from_csv(place) or _from_folders(place)
        if not by_class:
            return super().class_folders(place)
        if len(by_class) != self.classes:
            raise DataError(f"{place} has {len(by_class)} classes, not {self.classes}")
        everything = listing(by_class)
        train, test = _split(everything)
        names = spoken(by_class, place)
        return ImageFiles(
            everything.rows(train), everything.rows(test), self.classes, self.fit, names
        )


def _from_csv(place: Path) -> dict[str, list[Path]]:
    """Files by class from the three lists, classes and files sorted; empty without lists."""
    lists = [place / f"{part}.csv" for part in SPLITS]
    if not (place / "images").is_dir() or not any(path.exists() for path in lists):
        return {}
    by_class: dict[str, list[Path]] = {}
    for path in lists:
        try:
            with path.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    by_class.setdefault(row["label"], []).append(place / "images" / row["filename"])
        except (OSError, KeyError) as error:
            raise DataError(f"{path} is missing or has no filename and label: {error}") from None
    return {name: sorted(by_class[name]) for name in sorted(by_class)}


def _from_folders(place: Path) -> dict[str, list[Path]]:
    """Files by class from few-shot parts or from folders side by side; empty if there are none."""
    parts = [place / part for part in SPLITS if (place / part).is_dir()]
    names = [{folder.name for folder in subfolders(part)} for part in parts]
    if len(parts) > 1 and not set.intersection(*names):
        found = [class_folders(part) for part in parts]
        merged = {name: files for part in found for name, files in part.items()}
        return {name: merged[name] for name in sorted(merged)}
    if not parts and len(subfolders(place)) >= MiniImageNet.classes:
        return class_folders(place)
    return {}


def _split(everything: Listing) -> tuple[list[int], list[int]]:
    """Positions for training and test: four fifths of each class, chosen by a fixed seed."""
    labels = np.array(everything.labels)
    train, test = [], []
    for label in range(labels.max() + 1):
        rows = np.flatnonzero(labels == label)
        order = np.random.default_rng(derive_seed("miniimagenet", label)).permutation(rows)
        cut = round(0.8 * len(rows))
        train += sorted(order[:cut].tolist())
        test += sorted(order[cut:].tolist())
    return train, test
