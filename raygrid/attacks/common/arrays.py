"""Reading arrays and pictures that others published, without ever running code in them."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raygrid.core.errors import DataError, unknown
from raygrid.core.hashing import content_of
from raygrid.core.lazy import np, torch
from raygrid.storage.pictures import SUFFIXES, as_rgb, is_picture, opened, pictures_in, subfolders

if TYPE_CHECKING:
    from torch import Tensor

TORCH = (".pt", ".pth")
NUMPY = (".npy", ".npz")
_UNREADABLE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    EOFError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


def load_array(path: Path, entry: str = "") -> Tensor:
    """The one array of a `.pt`, `.npy` or `.npz` file, or its `entry`.

    Raises DataError for other files, for damaged ones and for those that hold pickled code.
    """
    if path.suffix not in TORCH + NUMPY:
        allowed = ", ".join(TORCH + NUMPY)
        raise DataError(f"{path} is not readable here, allowed are {allowed} and class folders")
    try:
        held = _load_torch(path) if path.suffix in TORCH else _load_numpy(path)
    except FileNotFoundError:
        raise DataError(f"{path} is not there") from None
    except _UNREADABLE as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        message = f"{path} is damaged or holds pickled code, which is never run: {first}"
        raise DataError(message) from None
    return _pick(path, held, entry)


def _load_torch(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _load_numpy(path: Path) -> Any:
    held = np.load(path, allow_pickle=False)
    if isinstance(held, np.ndarray):
        return torch.from_numpy(held)
    with held:
        return {name: torch.from_numpy(held[name]) for name in held.files}


def _pick(path: Path, held: Any, entry: str) -> Tensor:
    if isinstance(held, Mapping):
        arrays = {str(k): v for k, v in held.items() if isinstance(v, torch.Tensor)}
        if not entry and len(arrays) == 1:
            return next(iter(arrays.values()))
        if entry not in arrays:
            raise DataError(f"{path}: " + unknown("entry", entry, arrays))
        return arrays[entry]
    if not isinstance(held, torch.Tensor):
        raise DataError(f"{path} holds a {type(held).__name__}, expected one array")
    return held


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
        raise DataError(f"{root} has no class folders with pictures ({', '.join(SUFFIXES)})")
    arrays = []
    for _, path in found:
        with opened(path) as picture:
            arrays.append(np.asarray(as_rgb(picture, path)))
    shapes = {a.shape for a in arrays}
    if len(shapes) > 1:
        raise DataError(f"the pictures in {root} have different sizes: {sorted(shapes)[:3]}")
    pixels = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()
    return pixels, torch.tensor([c for c, _ in found]), [p.stem for _, p in found]


def content_hash(path: Path) -> str:
    """Names the bytes of a file, or of all pictures in class folders with their places.

    Raises DataError if there is nothing at `path`.
    """
    folders = subfolders(path) if path.is_dir() else []
    files = [path] if path.is_file() else sorted(p for f in folders for p in pictures_in(f))
    if not files:
        raise DataError(f"{path} is not there, or has no class folders with pictures")
    return content_of(path, files)
