"""What others published, in a file of arrays or in folders of pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raygrid.core.errors import DataError
from raygrid.core.hashing import content_of
from raygrid.core.lazy import np, torch
from raygrid.storage.array_files import ARRAY_SUFFIXES, chosen, load_entries
from raygrid.storage.limits import LARGEST_ARRAYS
from raygrid.storage.parquet import parquet_files, read_pictures
from raygrid.storage.pictures import (
    PICTURE_SUFFIXES,
    as_rgb,
    is_picture,
    opened,
    pictures_in,
    subfolders,
)

if TYPE_CHECKING:
    from torch import Tensor

_FLAT = "data"  # the folder that some sources put around their pictures


@dataclass(frozen=True)
class Published:
    """What a file or folder of a poison holds.

    values: one entry for each image, class, or all images. labels: int64, one for each entry (or
    for each training image), None if there are none. rows: int64, the training row of each entry
    where the names of pictures say it. numbered: int64, the number that each entry's class folder
    is called by; where there are more than ten, sorted names have another order.
    """

    values: Tensor
    labels: Tensor | None = None
    rows: Tensor | None = None
    numbered: Tensor | None = None


def load_published(path: Path, entry: str = "", most: float = LARGEST_ARRAYS) -> Published:
    """What lies at `path`: arrays, Parquet, class folders, or a flat folder of pictures.

    entry: which array, for files with several. most: bytes that a file may come to, unless a
    person allows more. Raises DataError for anything else, for damaged files and for those that
    hold pickled code.
    """
    if files := parquet_files(path):
        held = read_pictures(files)
        pixels = torch.from_numpy(held.pixels).permute(0, 3, 1, 2).contiguous()
        return Published(pixels, _from_numpy(held.labels), _from_numpy(held.rows))
    if not path.is_dir():
        entries = load_entries(path, most)
        return Published(chosen(path, entries, entry), _labels_among(entries, entry))
    flat = _flat_folder(path)
    if flat is None:
        pixels, labels, names = load_class_folders(path)
        numbers = _as_rows([folder.name for folder in subfolders(path)])
        return Published(
            pixels, labels, _as_rows(names), None if numbers is None else numbers[labels]
        )
    files = pictures_in(flat, beside=("manifest.json",))
    rows = _as_rows([f.stem for f in files])
    if rows is None:
        raise DataError(f"{flat} is a flat folder: its pictures must be named by training row")
    return Published(_stacked(flat, files), None, rows)


def _from_numpy(values: Any) -> Tensor | None:
    return None if values is None else torch.from_numpy(values)


def _labels_among(arrays: Mapping[str, Tensor], entry: str) -> Tensor | None:
    """The only vector of whole numbers beside the values; of several, the one called so."""
    vectors = {
        name: value
        for name, value in arrays.items()
        if name != entry and value.ndim == 1 and not value.is_floating_point()
    }
    named = [v for n, v in vectors.items() if n.lower() in ("labels", "label", "targets", "y")]
    found = named or list(vectors.values())
    return found[0].long() if len(found) == 1 else None


def _flat_folder(root: Path) -> Path | None:
    """The folder with the pictures if they lie side by side; None for class folders.

    Some lie deeper, as in `<attack>_poisons/<dataset>/data/`.
    """
    folders = subfolders(root)
    here = any(map(is_picture, root.iterdir()))
    if not folders and here:
        return root
    if here or len(folders) != 1:
        return None
    flat = _flat_folder(folders[0])
    return flat if flat is not None and flat.name == _FLAT else None


def _as_rows(names: Sequence[str]) -> Tensor | None:
    return torch.tensor([int(n) for n in names]) if all(n.isdecimal() for n in names) else None


def load_class_folders(root: Path) -> tuple[Tensor, Tensor, list[str]]:
    """Pictures in one folder a class.

    Returns uint8 (n, 3, H, W), the class of each (position of its folder in sorted order) and the
    names without suffix, folder by folder in sorted order. Raises DataError for anything else.
    """
    found = [(c, p) for c, folder in enumerate(subfolders(root)) for p in pictures_in(folder)]
    loose = sum(map(is_picture, root.iterdir()))
    if loose and found:
        raise DataError(f"{root} has {loose} pictures beside its class folders; put them into one")
    if not found:
        raise _without_pictures(root)
    pixels = _stacked(root, [path for _, path in found])
    return pixels, torch.tensor([c for c, _ in found]), [p.stem for _, p in found]


def _without_pictures(folder: Path) -> DataError:
    """Says what a folder lacks, and which of its files may be meant instead of it."""
    arrays = sorted(f for f in folder.iterdir() if f.suffix.lower() in ARRAY_SUFFIXES)
    instead = ", ".join(map(str, arrays[:3]))
    hint = f"; give a file of arrays in it as the path: {instead}" if instead else ""
    allowed = ", ".join(PICTURE_SUFFIXES)
    return DataError(f"{folder} has no class folders with pictures ({allowed}){hint}")


def _stacked(root: Path, files: Iterable[Path]) -> Tensor:
    """Pictures of one size, uint8 (n, 3, H, W)."""
    arrays = []
    for path in files:
        with opened(path) as picture:
            arrays.append(np.asarray(as_rgb(picture, path)))
    shapes = {a.shape for a in arrays}
    if len(shapes) > 1:
        raise DataError(f"the pictures in {root} have different sizes: {sorted(shapes)[:3]}")
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()


def content_hash(path: Path) -> str:
    """Names the bytes of a file, or of all pictures of a folder with their places.

    Raises DataError if there is nothing at `path`.
    """
    if path.is_file():
        return content_of(path, [path])
    if files := parquet_files(path):
        return content_of(path, files)
    flat = _flat_folder(path) if path.is_dir() else None
    folders = [flat] if flat else subfolders(path) if path.is_dir() else []
    beside = ("manifest.json",)
    files = sorted(p for f in folders for p in pictures_in(f, beside))
    if not path.exists():
        raise DataError(f"{path} is not there")
    if not files:
        raise _without_pictures(path)
    return content_of(path, files)
