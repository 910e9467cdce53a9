"""TinyImageNet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from raygrid.core.errors import DataError
from raygrid.core.registry import Card
from raygrid.datasets.base import DATASETS
from raygrid.datasets.common.files import FileDataset
from raygrid.datasets.common.holdings import (
    Holding,
    ImageFiles,
    Listing,
    class_folders,
    extract,
    fetch,
    listing,
    spoken,
)
from raygrid.storage.pictures import pictures_in


@DATASETS.register("tinyimagenet")
@dataclass(frozen=True, kw_only=True)
class TinyImageNet(FileDataset):
    """200 classes of 500 images, 64x64; the 10,000 validation images are the test part.

    Official form: `tiny-imagenet-200/`. Paths are sorted as strings (`_1`, `_10`, `_100`, ...),
    classes by WordNet id; the set-ups of targeted attacks count on this order.
    """

    card = Card(
        paper="Le and Yang 2015, Tiny ImageNet Visual Recognition Challenge",
        notes="some images are gray and become RGB",
    )
    url: ClassVar[str] = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
    md5: ClassVar[str] = "90528d7ca1a48142e341f4ef8d21d0de"
    classes: ClassVar[int] = 200
    image_size: ClassVar[int] = 64
    train_size: ClassVar[int] = 100_000
    test_size: ClassVar[int] = 10_000
    mean: ClassVar[tuple[float, float, float]] = (0.4802, 0.4481, 0.3975)
    std: ClassVar[tuple[float, float, float]] = (0.2302, 0.2265, 0.2262)

    def official(self, place: Path) -> Holding | None:
        home = place if (place / "wnids.txt").exists() else place / "tiny-imagenet-200"
        if not (home / "wnids.txt").exists():
            return None
        wnids = sorted((home / "wnids.txt").read_text(encoding="utf-8").split())
        if len(wnids) != self.classes:
            raise DataError(f"{home / 'wnids.txt'} has {len(wnids)} classes, not {self.classes}")
        train = {wnid: self._images(home / "train" / wnid / "images") for wnid in wnids}
        test = self._validation(home, wnids)
        return ImageFiles(listing(train), test, self.classes, self.fit, spoken(wnids, home))

    @staticmethod
    def _images(folder: Path) -> list[Path]:
        found = pictures_in(folder) if folder.is_dir() else []
        if not found:
            raise DataError(f"{folder} holds no images; unpack the archive again")
        return found

    def _validation(self, home: Path, wnids: list[str]) -> Listing:
        """The flat folder with its annotations, or class folders that somebody made of it."""
        annotations = home / "val" / "val_annotations.txt"
        if not (home / "val" / "images").is_dir():
            return listing(class_folders(home / "val", wnids))
        files = self._images(home / "val" / "images")
        try:
            lines = (
                line.split("\t") for line in annotations.read_text(encoding="utf-8").splitlines()
            )
            wnid = {fields[0]: fields[1] for fields in lines}
            return Listing(files, [wnids.index(wnid[file.name]) for file in files])
        except (OSError, LookupError, ValueError) as error:
            raise DataError(f"{annotations} does not label every image ({error})") from None

    def download(self, root: Path) -> None:
        archive = fetch(self.url, root / self.id, self.md5)
        extract(archive, root / self.id)
        archive.unlink()
