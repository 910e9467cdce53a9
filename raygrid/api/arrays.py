"""A user's own arrays as `Images`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from raygrid.core.errors import DataError
from raygrid.core.images import Images, fingerprint
from raygrid.core.registry import require

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

# Pixels of a side: below no network takes it, above nothing was tried.
LEAST_SIDE, MOST_SIDE = 8, 1024


def as_images(
    images: Images | tuple[ArrayLike, ArrayLike], classes: int | None = None, what: str = "images"
) -> Images:
    """Turn a pair of arrays into `Images`; `Images` stay as they are.

    images: `Images`, or a pair (pixels, labels) of numpy arrays, tensors or nested lists.
        pixels are uint8 in [0, 255], (N, 3, S, S) or (N, S, S, 3), with sides of 8 to 1024 pixels.
        labels are N integers in [0, classes).
    classes: the number of classes; by default one more than the largest label.
    what: the name of the argument, for the messages.

    Raises DataError that names what was given and what is allowed, SpecError for a number of
    classes that there cannot be. Nothing is scaled, cut or converted to another range.
    """
    given: Any = images  # callers are not always type-checked
    _check_classes(classes)
    if isinstance(given, Images):
        made = given
    elif isinstance(given, tuple | list) and len(given) == 2:
        pixels, labels = _pixels(given[0], what), _labels(given[1], what)
        if len(pixels) != len(labels):
            raise DataError(f"{what}: {len(pixels)} pictures have {len(labels)} labels")
        most = int(labels.max()) + 1 if len(labels) else 0
        count = most if classes is None else classes
        made = Images(pixels, labels, count)
    else:
        kind = type(given).__name__
        raise DataError(f"{what} is a {kind}, allowed are Images or a pair (pixels, labels)")
    return _checked(made, classes, what)


def _check_classes(given: Any) -> None:
    kind = isinstance(given, int | np.integer) and not isinstance(given, bool)
    whole = kind and int(given) >= 1
    allowed = "allowed are None and whole numbers from 1"
    require(given is None or whole, f"classes is {given!r}, {allowed}")


def _checked(images: Images, classes: int | None, what: str) -> Images:
    if len(images) == 0:
        raise DataError(f"{what} is empty, wanted is one image or more")
    low, high = int(images.labels.min()), int(images.labels.max())
    count = images.classes if classes is None else int(classes)
    if low < 0 or high >= count:
        wrong = low if low < 0 else high
        raise DataError(
            f"{what}: label {wrong} is not allowed, those of {count} classes are 0 to {count - 1}"
        )
    channels, height, width = images.shape
    if channels != 3 or height != width or not LEAST_SIDE <= height <= MOST_SIDE:
        raise DataError(
            f"{what} are {channels} x {height} x {width}, allowed are 3 channels and square images "
            f"of {LEAST_SIDE} to {MOST_SIDE} pixels"
        )
    name = images.fingerprint or fingerprint(images.pixels, images.labels)
    return Images(images.pixels.cpu(), images.labels.cpu(), count, name)


def _pixels(given: Any, what: str) -> Tensor:
    """uint8 (N, 3, S, S)."""
    array = _tensor(given, f"{what}: pixels")
    if isinstance(given, list | tuple) and array.dtype == torch.int64 and array.numel():
        low, high = array.aminmax()  # numbers of a list have no width of their own
        array = array.byte() if low >= 0 and high <= 255 else array
    kind = f"{str(array.dtype).removeprefix('torch.')} {tuple(array.shape)}"
    if array.dtype != torch.uint8:
        raise DataError(
            f"{what}: pixels are {kind}{_range(array)}; allowed is uint8 in [0, 255]"
            f"{_remedy(array)}"
        )
    if array.dim() != 4 or 3 not in (array.shape[1], array.shape[3]):
        raise DataError(f"{what}: pixels are {kind}; allowed are (N, 3, S, S) and (N, S, S, 3)")
    return (array if array.shape[1] == 3 else array.permute(0, 3, 1, 2)).contiguous()


def _range(array: Tensor) -> str:
    if not array.numel() or array.is_complex():
        return ""
    low, high = array.double().aminmax()  # of some types torch knows no order
    return f" from {low.item():.4g} to {high.item():.4g}"


def _remedy(array: Tensor) -> str:
    """How values that look like another usual range become uint8."""
    if not array.is_floating_point() or not array.numel():
        return ""
    low, high = float(array.min()), float(array.max())
    if low >= 0 and high <= 1:
        return " (for floats in [0, 1]: (255 * x).round().astype('uint8'))"
    return " (undo the normalization first)" if low < 0 else ""


def _labels(given: Any, what: str) -> Tensor:
    """int64 (N,)."""
    array = _tensor(given, f"{what}: labels")
    kind = f"{str(array.dtype).removeprefix('torch.')} {tuple(array.shape)}"
    if array.dim() != 1 or array.is_floating_point() or array.dtype == torch.bool:
        raise DataError(f"{what}: labels are {kind}; allowed are whole numbers (N,)")
    return array.long()


def _tensor(given: Any, what: str) -> Tensor:
    if isinstance(given, Tensor):
        return given.detach().cpu()
    try:
        array = np.asarray(given)
        if array.dtype.kind in "iuf":  # native byte order, and types that torch knows
            array = array.astype(array.dtype.newbyteorder("="))
        return torch.from_numpy(np.ascontiguousarray(array).copy())
    except (TypeError, ValueError) as error:
        raise DataError(f"{what} are no array of numbers: {error}") from None
