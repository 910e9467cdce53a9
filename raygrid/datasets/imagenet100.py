"""ImageNet-100: a hundred classes of ImageNet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from raygrid.core.errors import DataError
from raygrid.core.registry import Card, require
from raygrid.datasets.base import DATASETS
from raygrid.datasets.common.decoding import Resizing
from raygrid.datasets.common.files import FileDataset
from raygrid.datasets.common.holdings import (
    Holding,
    ImageFiles,
    listing,
    spoken,
    train_and_test,
)
from raygrid.storage.pictures import subfolders


@DATASETS.register("imagenet100")
@dataclass(frozen=True, kw_only=True)
class ImageNet100(FileDataset):
    """100 classes at 224x224: shorter side to 256, center cut out.

    Class folders in `<root>/imagenet100`: `train/<wnid>`, `val/<wnid>`. Where more than 100 lie,
    those listed in `classes.txt` count, without a list the first 100 WordNet ids.
    """

    card = Card(
        paper="Russakovsky et al. 2015 (ImageNet); subset: Huang et al. 2021 (first 100 classes)",
        notes="APBench has 200 training and 40 test images a class (train_per_class=200, "
        "test_per_class=40), which ones is not published; others take all. Both parts are decoded "
        "once, as in D-VAE's code: shorter side to 256, center cut out. APBench's and AVATAR's "
        "code squeeze test images to 256x256 before they cut, whatever their shape, and random "
        "crops of clean images are of the whole picture there; here they are of the stored center. "
        "How training images are augmented is the protocol's",
    )
    train_per_class: int | None = None  # images, the first ones by name; none: all
    test_per_class: int | None = None  # images

    classes: ClassVar[int] = 100
    image_size: ClassVar[int] = 224
    train_size: ClassVar[int] = 128_000  # about 1,280 a class
    test_size: ClassVar[int] = 5_000
    augmentation: ClassVar[str] = "rrc_flip"
    exact_sizes: ClassVar[bool] = False
    mean: ClassVar[tuple[float, float, float]] = (0.485, 0.456, 0.406)
    std: ClassVar[tuple[float, float, float]] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        for part in ("train", "test"):
            name, size = f"{part}_per_class", f"{part}_size"
            value = getattr(self, name)
            require(value is None or value > 0, f"{name} is {value}, allowed are none and from 1")
            if value is not None:
                few = min(self.classes * value, getattr(type(self), size))
                object.__setattr__(self, size, few)

    @property
    def fit(self) -> Resizing:
        return Resizing(self.image_size, resize=256)

    def class_folders(self, place: Path) -> Holding | None:
        if not (place / "train").is_dir():
            return None
        train, test = train_and_test(place, self._chosen(place))
        few_train = {name: files[: self.train_per_class] for name, files in train.items()}
        few_test = {name: files[: self.test_per_class] for name, files in test.items()}
        names = spoken(train, place)
        return ImageFiles(listing(few_train), listing(few_test), self.classes, self.fit, names)

    def _chosen(self, place: Path) -> list[str]:
        """The class folders that count, sorted by name."""
        given = place / "classes.txt"
        names = given.read_text(encoding="utf-8").split() if given.exists() else None
        wnids = sorted(names or [folder.name for folder in subfolders(place / "train")])
        if len(wnids) < self.classes or (names and len(wnids) != self.classes):
            where = given if names else place / "train"
            raise DataError(f"{where} has {len(wnids)} classes, {self.id} needs {self.classes}")
        return wnids[: self.classes]
