"""Whether the file of a poison fits a dataset, as far as that is known before anything runs.

Pictures in folders and in Parquet are many and take long to decode: whoever makes the poison looks
at them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from raygrid.core.errors import DataError
from raygrid.core.lazy import torch
from raygrid.storage.limits import LARGEST_ARRAYS
from raygrid.storage.published_arrays import content_hash, load_published

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Wanted:
    """A training set, as a poison has to fit it: images, classes, and the shape of one image."""

    images: int
    classes: int
    plane: tuple[int, int, int]

    def check(self, path: Path, shape: tuple[int, ...]) -> None:
        """Raise DataError unless values of this shape have an entry an image, a class or one."""
        channels, height, width = self.plane
        last = (height, width, channels)
        if shape in (self.plane, last):
            shape = (1, *shape)
        if shape[1:] in (self.plane, last) and shape[0] in (1, self.images, self.classes):
            return
        expected = f"({self.images} or {self.classes}, {channels}, {height}, {width})"
        raise DataError(
            f"{path} has shape {shape}, expected {expected}, channels last, or one for all images"
        )

    def check_labels(self, path: Path, held: ArrayFacts) -> None:
        """Raise DataError for labels that no order of the images could have."""
        if held.labels is None or held.shape[:1] != (self.images,) or held.one_each:
            return
        count, least, most = held.labels
        if count != self.images:
            raise DataError(f"{path} has {count} labels, expected {self.images}")
        if least < 0 or most >= self.classes:
            raise DataError(
                f"{path} has labels from {least} to {most}, expected 0 to {self.classes - 1}"
            )


@dataclass(frozen=True)
class ArrayFacts:
    """What the array of a file is like.

    least, most: of its values, floats times `scale` and integers in 1/255 steps. labels: how many,
    the least and the largest; one_each: whether no two are alike, as of an entry for each class.
    """

    shape: tuple[int, ...]
    least: float
    most: float
    labels: tuple[int, int, int] | None
    one_each: bool


def fault_of(path: Path, entry: str, scale: float, wanted: Wanted | None) -> str | None:
    """Why the file cannot be the poison of a training set, None where nothing is known against it.

    wanted: None where nobody looked at the data yet. A file is read once for all trials with it.
    """
    if not path.is_file() or path.suffix.lower() == ".parquet":
        return None
    held = _held(path, entry, scale, content_hash(path))
    if isinstance(held, str):
        return held
    try:
        check_range(path, held.least, held.most, -1, 1)
        if wanted is not None:
            wanted.check(path, held.shape)
            wanted.check_labels(path, held)
    except DataError as error:
        return str(error)
    return None


@lru_cache(maxsize=64)
def _held(path: Path, entry: str, scale: float, content: str) -> ArrayFacts | str:
    """What a file holds, or why it cannot be read; the key of its content is for the cache."""
    try:
        found = load_published(path, entry, LARGEST_ARRAYS)
        values, labels = found.values, found.labels
        check_type(path, values)
    except DataError as error:
        return str(error)
    if not values.numel():
        return f"{path} has shape {tuple(values.shape)}, which holds no values"
    step = scale if values.is_floating_point() else 1 / 255
    each = None
    if labels is not None and len(labels):
        each = len(labels), int(labels.min()), int(labels.max())
    alone = labels is not None and len(labels.unique()) == len(labels)
    ends = float(values.min()) * step, float(values.max()) * step
    return ArrayFacts(tuple(values.shape), *ends, each, alone)


def check_type(path: Path, values: Tensor) -> None:
    """Raise DataError unless values are integers or floats."""
    if values.is_complex() or values.dtype == torch.bool:
        raise DataError(f"{path} holds {values.dtype}, expected integers or floats")


def check_range(path: Path, least: float, most: float, low: float, high: float) -> None:
    """Raise DataError unless values lie between `low` and `high`."""
    slack = 1e-5  # of float arithmetic
    if not (low - slack <= least and most <= high + slack):  # NaN fails too
        raise DataError(
            f"{path} has values from {least:.4g} to {most:.4g}, expected {low} to {high}; "
            "scale=1/255 turns a float file of levels into fractions"
        )
