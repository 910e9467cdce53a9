"""Reading the arrays in a file that others made, without ever running code in it."""

from __future__ import annotations

import io
import lzma
import pickle
import re
import warnings
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raygrid.core.errors import DataError, in_one_line, unknown
from raygrid.core.lazy import np, torch
from raygrid.storage.limits import LARGEST_ARRAYS, check_bytes, unpacked_size
from raygrid.storage.pickles import ArrayUnpickler
from raygrid.storage.pictures import as_rgb, opened

if TYPE_CHECKING:
    from torch import Tensor

TORCH_SUFFIXES = (".pt", ".pth")
NUMPY_SUFFIXES = (".npy", ".npz")
PICKLE_SUFFIXES = (".pkl", ".pickle")
ARRAY_SUFFIXES = TORCH_SUFFIXES + NUMPY_SUFFIXES + PICKLE_SUFFIXES
_UNREADABLE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    zlib.error,
    lzma.LZMAError,
)
_ADVICE = re.compile(r"allow_pickle|weights_only|weights only|trust the", re.IGNORECASE)
"""What libraries say where a person could make them run the code in a file."""


def load_array(path: Path, entry: str = "") -> Tensor:
    """The one array of a file, or its `entry`; raises DataError like `load_published`."""
    return chosen(path, load_entries(path), entry)


def load_entries(path: Path, most: float = LARGEST_ARRAYS) -> dict[str, Tensor]:
    """All arrays of a file by name; one without names is called by its place, a lone one ``.

    A list of pairs (picture or array, label), as in pickles of whole training sets, becomes
    `values` and `labels`. Raises DataError like `load_published`.
    """
    kind = path.suffix.lower()
    if kind not in ARRAY_SUFFIXES:
        allowed = ", ".join(ARRAY_SUFFIXES)
        raise DataError(
            f"{path} is not readable here, allowed are {allowed}, .parquet and class folders"
        )
    try:
        if kind in TORCH_SUFFIXES:
            held = _load_torch(path)
        else:
            held = _load_numpy(path, most) if kind in NUMPY_SUFFIXES else _load_pickle(path)
        check_bytes(path, _size(held), most)  # sparse and expanded tensors are small in a file
        return _entries(path, held)
    except FileNotFoundError:
        raise DataError(f"{path} is not there") from None
    except _UNREADABLE as error:
        said = in_one_line(error)
        why = "" if _ADVICE.search(said) else f": {said}"
        raise DataError(
            f"{path} is damaged or holds pickled code, which is never run{why}"
        ) from None


def _load_torch(path: Path) -> Any:
    """With numpy's arrays admitted, which are data alone; all other classes stay refused."""
    reconstruct = np.empty(0).__reduce__()[0]
    kinds = {type(np.dtype(code)) for code in "?bhilqBHILQefdg"}
    older = (reconstruct, "numpy.core.multiarray._reconstruct")  # its name in numpy 1
    admitted: list[Any] = [reconstruct, older, np.ndarray, np.dtype, *kinds]
    with torch.serialization.safe_globals(admitted), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Validating sparse tensor")  # as it should
        return torch.load(path, map_location="cpu", weights_only=True)


def _load_pickle(path: Path) -> Any:
    return ArrayUnpickler.read(path.read_bytes())


def _size(held: Any) -> int:
    """Bytes of all arrays once they are dense."""
    if isinstance(held, torch.Tensor):
        return held.numel() * held.element_size()
    if isinstance(held, np.ndarray):
        return int(held.nbytes)
    if isinstance(held, Mapping):
        return sum(map(_size, held.values()))
    return sum(map(_size, held)) if isinstance(held, list | tuple) else 0


def _load_numpy(path: Path, most: float) -> Any:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as packed:
            check_bytes(path, unpacked_size(packed), most)
    held = np.load(path, allow_pickle=False)
    if isinstance(held, np.ndarray):
        return held
    with held:
        return {name: held[name] for name in held.files}


def _entries(path: Path, held: Any) -> dict[str, Tensor]:
    """Whatever a file held, as named tensors; ValueError and TypeError for what is no array."""
    if isinstance(held, Mapping):
        arrays = {str(name): v for name, v in held.items() if _is_array(v)}
        return {name: as_tensor(value) for name, value in arrays.items()}
    if _is_array(held):
        return {"": as_tensor(held)}
    if isinstance(held, list | tuple) and held:
        return _of_sequence(path, held)
    raise DataError(f"{path} holds a {type(held).__name__}, expected an array, a dict or a list")


def _of_sequence(path: Path, held: Sequence[Any]) -> dict[str, Tensor]:
    if all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in held):
        labels = torch.tensor([int(label) for _, label in held])
        return {"values": _stack(path, [value for value, _ in held]), "labels": labels}
    if not all(_is_array(value) or isinstance(value, bytes) for value in held):
        kinds = sorted({type(value).__name__ for value in held})
        raise DataError(f"{path} holds a list of {', '.join(kinds)}, expected arrays")
    if len(held) == 1 and _is_array(held[0]):
        return {"": as_tensor(held[0])}
    if all(np.ndim(value) == 4 for value in held):  # batches
        return {"": torch.cat([as_tensor(value) for value in held])}
    if len({tuple(np.shape(value)) for value in held}) == 1:
        return {"": _stack(path, held)}
    return {str(place): as_tensor(value) for place, value in enumerate(held)}


def _stack(path: Path, values: Sequence[Any]) -> Tensor:
    """One array of many; pictures in their file format are decoded to uint8 (n, H, W, 3)."""
    decoded = [_picture(path, v, i) if isinstance(v, bytes) else v for i, v in enumerate(values)]
    return torch.stack([as_tensor(value) for value in decoded])


def _picture(path: Path, content: bytes, place: int) -> Any:
    name = path / f"entry {place}"
    with opened(name, io.BytesIO(content)) as image:
        return np.asarray(as_rgb(image, name))


def _is_array(value: Any) -> bool:
    return isinstance(value, torch.Tensor | np.ndarray)


def as_tensor(value: Any) -> Tensor:
    """A dense tensor on the CPU of an array of any byte order; unsigned 16 and 32 bits widened.

    Raises TypeError for what torch has no type for.
    """
    if isinstance(value, torch.Tensor):
        dense = value.detach().to_dense() if value.layout != torch.strided else value.detach()
        wider = {torch.uint16: torch.int32, torch.uint32: torch.int64}.get(dense.dtype)
        return dense if wider is None else dense.to(wider)
    native = value.astype(value.dtype.newbyteorder("="), copy=False)
    wide = {"u2": np.int32, "u4": np.int64, "f16": np.float64}.get(native.dtype.str[1:])
    return torch.from_numpy(np.array(native, dtype=wide or native.dtype, order="C"))


def chosen(path: Path, arrays: Mapping[str, Tensor], entry: str) -> Tensor:
    """The entry that is named, else the only one, else the only one that can hold pictures."""
    if entry in arrays:
        return arrays[entry]
    shaped = [value for value in arrays.values() if value.ndim >= 3]
    if not entry and (len(arrays) == 1 or len(shaped) == 1):
        return (shaped or list(arrays.values()))[0]
    raise DataError(f"{path}: " + unknown("entry", entry, arrays))
