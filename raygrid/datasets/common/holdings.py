"""The forms in which a dataset may lie on disk."""

from __future__ import annotations

import hashlib
import lzma
import tarfile
import tempfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

from raygrid.core.errors import DataError, in_one_line
from raygrid.core.images import Images
from raygrid.core.lazy import torch
from raygrid.datasets.base import Facts, Split
from raygrid.datasets.common.decoding import Resizing, decode
from raygrid.storage.limits import check_disk, unpacked_size
from raygrid.storage.pictures import PICTURE_SUFFIXES, is_lossy, pictures_in, subfolders

ARCHIVE_ERRORS = (
    *(tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, zlib.error, lzma.LZMAError),
    *(RuntimeError, NotImplementedError, ValueError),  # encrypted, of an unknown method, odd names
)
"""What reading an archive raises where it is damaged or packed in a way that is not known."""
ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".zip")
TEST_FOLDERS = ("test", "val")


class Holding(ABC):
    """A dataset in one form. Nothing is decoded before `load`.

    names: what the classes are called, in the order of the labels; empty where the form has none.
    """

    names: tuple[str, ...] = ()

    @abstractmethod
    def source(self) -> str:
        """What a changed file changes."""

    @abstractmethod
    def facts(self, nominal: Facts) -> Facts:
        """The facts that are known; what the form leaves open is `nominal`."""

    @abstractmethod
    def load(self) -> Split: ...


@dataclass(frozen=True)
class Listing:
    """Image files of one part and their labels."""

    files: Sequence[Path]
    labels: Sequence[int]

    def rows(self, positions: Sequence[int]) -> Listing:
        return Listing([self.files[i] for i in positions], [self.labels[i] for i in positions])

    def images(self, classes: int, fit: Resizing) -> Images:
        labels = torch.tensor(self.labels, dtype=torch.int64)
        return Images(decode(self.files, fit), labels, classes)


@dataclass(frozen=True)
class ImageFiles(Holding):
    """Image files whose order and labels are known."""

    train: Listing
    test: Listing
    classes: int
    fit: Resizing
    names: tuple[str, ...] = ()

    def source(self) -> str:
        listings = (self.train, self.test)
        labels = (str(label) for listing in listings for label in listing.labels)
        return identity([f for listing in listings for f in listing.files], *labels)

    def facts(self, nominal: Facts) -> Facts:
        sizes = len(self.train.files), len(self.test.files)
        lossy = any(is_lossy(file) for part in (self.train, self.test) for file in part.files)
        return Facts(self.classes, self.fit.side, *sizes, lossy=lossy)

    def load(self) -> Split:
        train = self.train.images(self.classes, self.fit)
        return Split(train, self.test.images(self.classes, self.fit))


def identity(files: Sequence[Path], *more: str) -> str:
    """Names, sizes and times of files as 32 hex digits."""
    digest = hashlib.sha256("\n".join(more).encode())
    for file in files:
        try:
            found = file.stat()
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error.strerror}") from None
        name = "/".join(file.parts[-3:])
        digest.update(f"{name} {found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]


def class_folders(folder: Path, classes: Collection[str] | None = None) -> dict[str, list[Path]]:
    """Image files by class: one folder a class, sorted by name.

    classes: only these. Raises DataError for an empty or missing class and for a lone one.
    """
    found = {f.name: pictures_in(f) for f in subfolders(folder)}
    if classes is not None:
        found = {name: found.get(name, []) for name in classes}
    for name, files in found.items():
        if not files:
            raise DataError(f"{folder / name} holds no image ({', '.join(PICTURE_SUFFIXES)})")
    if len(found) < 2:
        raise DataError(f"{folder} has {len(found)} class folders with images, needed are two")
    return found


def listing(by_class: dict[str, list[Path]]) -> Listing:
    """All files class by class; the label is the rank of the class."""
    files = [file for found in by_class.values() for file in found]
    labels = [label for label, found in enumerate(by_class.values()) for _ in found]
    return Listing(files, labels)


PART_NAMES = {
    "train": ("train", "training", "trainset", "train_set"),
    "test": ("test", "testing", "testset", "test_set", "val", "valid", "validation", "eval"),
}
"""Names that people give to the parts of a dataset, in lower case."""


def renamed(names: Sequence[str]) -> str:
    """What to rename where parts of a dataset have other names than `train` and `test`; or empty.

    Names are not guessed while data are read: who has `valid` beside `test` has to say which one
    is meant.
    """
    meant = {name: part for name in names for part, a in PART_NAMES.items() if name.lower() in a}
    pairs = [f"{name} to {part}" for name, part in meant.items() if name != part]
    return f"rename {' and '.join(pairs)}" if pairs else ""


def train_and_test(
    place: Path, classes: Collection[str] | None = None
) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """The class folders under `train` and `test` (or `val`); raises DataError if one is missing."""
    test_folder = next((place / t for t in TEST_FOLDERS if (place / t).is_dir()), None)
    for folder, name in ((place / "train", "train"), (test_folder, "test")):
        if folder is None or not folder.is_dir():
            hint = renamed([each.name for each in subfolders(place)])
            raise DataError(
                f"{place} lacks {name}/<class>/*.png: the {name} part is missing"
                + (f"; {hint}" if hint else "")
            )
    assert test_folder is not None
    train = class_folders(place / "train", classes)
    test = class_folders(test_folder, classes)
    if set(train) != set(test):
        odd = ", ".join(sorted(set(train) ^ set(test))[:5])
        raise DataError(f"{place}: train and {test_folder.name} differ in the classes {odd}")
    return train, test


WORDNET_FILES = ("words.txt", "LOC_synset_mapping.txt")
"""Files that come with ImageNet and its subsets: a WordNet id a line, then words."""


def spoken(classes: Iterable[str], place: Path) -> tuple[str, ...]:
    """The names of class folders, WordNet ids as the first of their words.

    The words are looked up in a file of WORDNET_FILES, in the dataset's folder or the one above;
    a name without a line there stays as it is.
    """
    names = list(classes)
    files = (folder / name for folder in (place, place.parent) for name in WORDNET_FILES)
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        return tuple(names)
    lines = found.read_text(errors="replace", encoding="utf-8").splitlines()
    words = {parts[0]: parts[1] for line in lines if len(parts := line.split(None, 1)) == 2}
    return tuple(words.get(name, name).split(",")[0].strip() for name in names)


@contextmanager
def unpacked(archive: Path) -> Iterator[list[Path]]:
    """The content of an archive in a temporary folder: places where a dataset may lie.

    Members that would leave the folder, links out of it and devices are refused.
    """
    with tempfile.TemporaryDirectory(prefix="raygrid-") as name:
        folder = Path(name)
        extract(archive, folder)
        yield [folder, *subfolders(folder)]


def extract(archive: Path, folder: Path) -> None:
    """Extract a tar or zip archive safely.

    Raises DataError if it is damaged (compressed data are read to their checksum), encrypted,
    unsafe, or larger than `raygrid.storage.limits` allows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                check_disk(archive, unpacked_size(packed), folder)
                packed.extractall(folder)  # leaves out what points outside
        else:
            _extract_tar(archive, folder)
    except ARCHIVE_ERRORS as error:
        raise DataError(
            f"{archive} cannot be unpacked ({in_one_line(error)}); replace it"
        ) from None


def _extract_tar(archive: Path, folder: Path) -> None:
    """Member by member, since only reading a compressed tar tells what it comes to."""
    size = 0
    with tarfile.open(archive) as tape:
        for member in tape:
            size += member.size
            check_disk(archive, size, folder)
            tape.extract(member, folder, filter="data")
        while tape.fileobj is not None and tape.fileobj.read(2**20):
            pass  # tarfile ends where the members do, before the checksum of what holds them


def fetch(url: str, folder: Path, md5: str) -> Path:
    """Download a file through torchvision and check it; raises DataError."""
    from torchvision.datasets.utils import check_integrity, download_url

    file = folder / url.rpartition("/")[2]
    if check_integrity(str(file), md5):
        return file
    part = file.with_name(f"{file.name}.part")  # what lies under the name itself may be somebody's
    try:
        folder.mkdir(parents=True, exist_ok=True)
        download_url(url, str(folder), part.name, md5)
        part.replace(file)
    except (URLError, OSError, RuntimeError) as error:
        part.unlink(missing_ok=True)
        raise DataError(f"cannot download {url} ({error}); put it under {folder} by hand") from None
    return file
