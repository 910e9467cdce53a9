"""What CIFAR-10 and CIFAR-100 share: the python batches, read without trusting them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from raygrid.core.errors import DataError
from raygrid.core.images import Images
from raygrid.core.lazy import np, torch
from raygrid.datasets.base import Facts, Split
from raygrid.datasets.common.files import FileDataset
from raygrid.datasets.common.holdings import Holding, extract, fetch, identity
from raygrid.storage.pickles import ArrayUnpickler


@dataclass(frozen=True, kw_only=True)
class Cifar(FileDataset):
    """Base of the two. url, md5: of the official archive; the rest: see `Batches`.

    batches: the folder of the batch files.
    """

    url: ClassVar[str]
    md5: ClassVar[str]
    batches: ClassVar[str]
    label: ClassVar[str]
    train_files: ClassVar[Mapping[str, str]]
    test_files: ClassVar[Mapping[str, str]]
    image_size: ClassVar[int] = 32
    train_size: ClassVar[int] = 50_000
    test_size: ClassVar[int] = 10_000
    lossless: ClassVar[bool] = True

    def official(self, place: Path) -> Holding | None:
        folder = place / self.batches
        if not folder.is_dir():
            return None
        return Batches(folder, self.train_files, self.test_files, self.label, self.classes)

    def download(self, root: Path) -> None:
        held = self.official(root / self.id)
        if isinstance(held, Batches) and held.whole():
            return
        archive = fetch(self.url, root / self.id, self.md5)
        extract(archive, root / self.id)
        archive.unlink()


@dataclass(frozen=True)
class Batches(Holding):
    """Batch files: a dict of `data`, uint8 (n, 3072) in the order channel, row, column, and labels.

    train, test: file names with the md5 of the official files, in the order of the images.
    label: the dict's key of the labels.
    """

    place: Path
    train: Mapping[str, str]
    test: Mapping[str, str]
    label: str
    classes: int

    def source(self) -> str:
        return identity([self.place / name for name in (*self.train, *self.test)])

    def facts(self, nominal: Facts) -> Facts:
        return nominal

    def whole(self) -> bool:
        """Whether all files are there, and the official ones."""
        try:
            for name, md5 in {**self.train, **self.test}.items():
                checked(self.place / name, md5)
        except DataError:
            return False
        return True

    def load(self) -> Split:
        return Split(self._part(self.train), self._part(self.test))

    def _part(self, files: Mapping[str, str]) -> Images:
        batches = [self._batch(self.place / name, md5) for name, md5 in files.items()]
        pixels = np.concatenate([data for data, _ in batches]).reshape(-1, 3, 32, 32)
        labels = torch.tensor([label for _, some in batches for label in some])
        return Images(torch.from_numpy(pixels), labels.long(), self.classes)

    def _batch(self, path: Path, md5: str) -> tuple[Any, list[int]]:
        content = checked(path, md5)
        try:
            batch = ArrayUnpickler.read(content, encoding="bytes")
            return batch[b"data"], batch[self.label.encode()]
        except Exception as error:  # a pickle fails in many ways
            raise DataError(f"{path} is no batch file ({error}); get it again") from None


def checked(path: Path, md5: str) -> bytes:
    """The content of an official file; raises DataError if it is missing or another one."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        raise DataError(
            f"{path} is damaged: its md5 is not that of the official file; get it again"
        )
    return content
