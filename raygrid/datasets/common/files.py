"""Datasets that are read from files: official formats, class folders, archives of either."""

from __future__ import annotations

import re
import shlex
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from raygrid.core.errors import DataError, MissingDataError, in_one_line
from raygrid.datasets.base import Dataset, Facts, Split
from raygrid.datasets.common.decoding import Resizing
from raygrid.datasets.common.holdings import (
    ARCHIVE_ERRORS,
    ARCHIVE_SUFFIXES,
    Holding,
    ImageFiles,
    identity,
    listing,
    renamed,
    spoken,
    train_and_test,
    unpacked,
)
from raygrid.storage.pictures import PICTURE_SUFFIXES, is_lossy, visible

_ENDINGS = "|".join(map(re.escape, PICTURE_SUFFIXES))
IN_ARCHIVE = re.compile(
    rf"(?:^|.*/)(train|test|val)/[^/.][^/]*/[^/.][^/]*(?:{_ENDINGS})$", re.IGNORECASE
)


@dataclass(frozen=True, kw_only=True)
class FileDataset(Dataset):
    """Takes what it finds first: the official files, class folders, an archive of one of them.

    All may lie in `<root>/<id>`, the official files in `<root>` as well.
    """

    archived: ClassVar[bool] = True  # whether sizes are known without unpacking

    def official(self, place: Path) -> Holding | None:
        """The official form if it lies in the folder `place`."""
        return None

    @property
    def fit(self) -> Resizing:
        """How image files come to the dataset's size."""
        return Resizing(self.image_size)

    def class_folders(self, place: Path) -> Holding | None:
        """`train/<class>/*.png` and `test/<class>/*.png` if there is one of them in `place`."""
        if not any((place / part).is_dir() for part in ("train", "test")):
            return None
        train, test = train_and_test(place)
        if len(train) != self.classes:
            raise DataError(
                f"{place / 'train'} has {len(train)} classes, {self.id} has {self.classes}; "
                f"images of your own are read with folder(name=...)"
            )
        return ImageFiles(
            listing(train), listing(test), self.classes, self.fit, spoken(train, place)
        )

    def held(self, place: Path) -> Holding | None:
        """What lies in one folder, archives aside."""
        return self.official(place) or self.class_folders(place)

    def find(self, root: Path) -> Holding:
        """What lies under the data root; raises DataError if there is nothing."""
        home = root / self.folder
        found = self.held(home) if home.is_dir() else None
        found = found or self.official(root)
        if found is not None:
            return found
        archives = sorted(f for f in home.glob("*") if f.name.endswith(ARCHIVE_SUFFIXES))
        if archives and self.archived:
            return Archive(archives[0], self)
        if home.exists() and not home.is_dir():
            raise DataError(f"no {self.id} in {root}: {home} is a file, expected a folder")
        wanted = "put the official files or train/<class>/*.png and test/<class>/*.png there"
        if self.downloads:
            place = (
                ""
                if root.absolute() == Path("data").absolute()
                else f" --data {shlex.quote(str(root))}"
            )
            wanted += f", or fetch them: raygrid download {self.id}{place}"
        names = sorted(f.name for f in home.iterdir() if visible(f)) if home.is_dir() else []
        if not names:
            state = "is empty" if home.is_dir() else "does not exist"
            raise MissingDataError(f"no {self.id} in {root}: {home} {state}; {wanted}")
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        hint = f"unpack {archives[0].name}" if archives else renamed(names) or wanted
        raise DataError(f"no {self.id} in {home}, which holds {', '.join(names[:5])}{more}; {hint}")

    def source(self, root: Path) -> str:
        return self.find(root).source()

    def describe(self, root: Path) -> Facts:
        return self.find(root).facts(super().describe(root))

    def load(self, root: Path) -> Split:
        return self.find(root).load()

    def named_classes(self, root: Path) -> tuple[str, ...]:
        return self.class_names or self.find(root).names


@dataclass(frozen=True)
class Archive(Holding):
    """A tar or zip file that holds the dataset in another form; unpacked only while it is read."""

    path: Path
    dataset: FileDataset

    def source(self) -> str:
        return identity([self.path])

    def facts(self, nominal: Facts) -> Facts:
        pictures = [found for found in map(IN_ARCHIVE.match, self._names()) if found]
        parts = [found[1].lower() for found in pictures]
        lossy = any(is_lossy(Path(found[0])) for found in pictures)
        train = parts.count("train")
        if not train:
            return replace(nominal, looked_at=False)
        # A dataset that takes some of the pictures alone says so when it reads them.
        sizes = train, len(parts) - train
        return Facts(nominal.classes, nominal.image_size, *sizes, looked_at=False, lossy=lossy)

    def _names(self) -> list[str]:
        try:
            if zipfile.is_zipfile(self.path):
                with zipfile.ZipFile(self.path) as packed:
                    return packed.namelist()
            with tarfile.open(self.path) as tape:
                return tape.getnames()
        except ARCHIVE_ERRORS as error:
            raise DataError(
                f"{self.path} cannot be read ({in_one_line(error)}); replace it"
            ) from None

    @contextmanager
    def _opened(self) -> Iterator[Holding]:
        with unpacked(self.path) as places:
            found = next(filter(None, map(self.dataset.held, places)), None)
            if found is None:
                raise DataError(f"{self.path} holds no {self.dataset.id} in a known form")
            yield found

    def load(self) -> Split:
        with self._opened() as found:
            return found.load()
