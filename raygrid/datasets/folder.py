"""Images of your own: class folders under the data root."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from raygrid.core.errors import DataError
from raygrid.core.registry import Card, require
from raygrid.datasets.base import DATASETS
from raygrid.datasets.common.decoding import Resizing
from raygrid.datasets.common.files import FileDataset
from raygrid.datasets.common.holdings import Holding, ImageFiles, listing, train_and_test
from raygrid.storage.pictures import EXIF_NOTE, size_of


@DATASETS.register("folder")
@dataclass(frozen=True, kw_only=True)
class Folder(FileDataset):
    """`<root>/<name>/train/<class>/*.png` and `test/<class>/*.png`; JPEG, WebP, BMP, GIF, TIFF too.

    Classes, sizes and numbers are found by looking; classes and files are sorted by name.
    """

    card = Card(
        paper="none; raygrid's own",
        notes="mean and std are 0.5 and 0.25, not measured; 16-bit gray is divided by 257; "
        f"{EXIF_NOTE}",
    )
    name: str = "images"  # of the folder under the data root
    size: int | None = None  # pixels: shorter side scaled to it, center cut out; none: as they are
    flip: bool = True  # whether a mirrored image keeps its class

    archived: ClassVar[bool] = False
    official_sizes: ClassVar[bool] = False
    classes: ClassVar[int] = 10
    image_size: ClassVar[int] = 32
    train_size: ClassVar[int] = 50_000
    test_size: ClassVar[int] = 10_000

    def __post_init__(self) -> None:
        plain = re.fullmatch(r"[^./\\][^/\\]*", self.name) is not None
        require(plain, f"name is {self.name!r}, allowed is the name of one folder")
        low = self.size is None or self.size >= 8
        require(low, f"size is {self.size}, allowed are none and whole numbers from 8")
        if not self.flip:
            object.__setattr__(self, "augmentation", "crop")
        if self.size is not None:
            object.__setattr__(self, "image_size", self.size)

    @property
    def folder(self) -> str:
        return self.name

    def class_folders(self, place: Path) -> Holding | None:
        if not any((place / part).is_dir() for part in ("train", "test")):
            return None
        train, test = train_and_test(place)
        fit = (
            Resizing(self.size, self.size)
            if self.size
            else Resizing(_side(listing(train).files[0]))
        )
        return ImageFiles(listing(train), listing(test), len(train), fit, tuple(train))


def _side(path: Path) -> int:
    """The size of the images, taken from one of them; raises DataError if it is not square."""
    width, height = size_of(path)
    if width != height:
        raise DataError(f"{path} has {width}x{height} pixels; set folder(size=...) to cut squares")
    return width
