"""Whether the file of a poison fits a dataset, as far as that is known before anything runs.

Pictures in folders and in Parquet are many and take long to decode: whoever makes the poison looks
at them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from raygrid.core.errors import DataError
from raygrid.core.lazy import torch
from raygrid.storage.limits import LARGEST_ARRAYS
from raygrid.storage.published_arrays import content_hash, load_published

if TYPE_CHECKING:
    from torch import Tensor

Content = Literal["auto", "perturbation", "images"]


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

    def check_count(self, path: Path, entries: int) -> None:
        """Raise DataError unless there are as many images as here."""
        if entries != self.images:
            raise DataError(f"{path} has {entries} images, expected {self.images}")

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
class Span:
    """The least and the largest value of an array as they lie in its file.

    floating: whether these are floats, which count after multiplication by a scale; integers count
    steps of 1/255. unsigned: whether they are bytes, which hold pixels.
    """

    least: float
    most: float
    floating: bool
    unsigned: bool

    @classmethod
    def of(cls, values: Tensor) -> Self:
        floating, unsigned = values.is_floating_point(), values.dtype == torch.uint8
        return cls(float(values.min()), float(values.max()), floating, unsigned)

    def step(self, scale: float) -> float:
        """What a value is multiplied by to be in the pixel range [0, 1]."""
        return scale if self.floating else 1 / 255

    def check(self, path: Path, content: Content, scale: float) -> None:
        """Raise DataError unless these may be the values of what `content` says."""
        if content == "perturbation" and self.unsigned:
            raise DataError(f"{path} is uint8 and has no negative values: it holds content=images")
        low, step = 0 if content == "images" else -1, self.step(scale)
        slack = 1e-5  # of float arithmetic
        if low - slack <= self.least * step and self.most * step <= 1 + slack:  # NaN fails
            return
        raise DataError(
            f"{path} has values from {self.least:.4g} to {self.most:.4g}, expected {low / step:g} "
            f"to {1 / step:g}; {self._remedy(low, step)}"
        )

    def _remedy(self, low: int, step: float) -> str:
        if low == 0 and -1 <= self.least * step < 0:
            return "images have no negative values, a perturbation may: content=perturbation"
        if self.floating and step == 1:
            return "scale=1/255 turns a float file of levels into fractions"
        if self.floating:
            return f"floats are multiplied by scale={step:.4g}"
        return "integers count steps of 1/255: save others as floats in fractions of the range"

    def check_clear(self, path: Path, scale: float) -> None:
        """Raise DataError for values that may be images as well as a perturbation."""
        least, most = (end * self.step(scale) for end in (self.least, self.most))
        if least >= 0 and most > 0.5:
            raise DataError(
                f"{path} has values from {least:.4g} to {most:.4g} of the pixel range, which "
                f"may be images or a perturbation: say content=images or content=perturbation"
            )


@dataclass(frozen=True)
class ArrayFacts:
    """What the array of a file is like.

    labels: how many, the least and the largest; one_each: whether no two are alike, as of an entry
    for each class.
    """

    shape: tuple[int, ...]
    span: Span
    labels: tuple[int, int, int] | None
    one_each: bool

    @property
    def entries(self) -> int:
        """How many there are of a shape that fits: one where it is that of an image."""
        return self.shape[0] if len(self.shape) == 4 else 1


def fault_of(
    path: Path, entry: str, content: Content, scale: float, wanted: Wanted | None
) -> str | None:
    """Why the file cannot be the poison of a training set, None where nothing is known against it.

    wanted: None where nobody looked at the data yet. A file is read once for all trials with it.
    Whether an entry an image is images or a perturbation may take the clean images to tell.
    """
    if not path.is_file() or path.suffix.lower() == ".parquet":
        return None
    held = _held(path, entry, content_hash(path))
    if isinstance(held, str):
        return held
    try:
        held.span.check(path, content, scale)
        if wanted is not None:
            wanted.check(path, held.shape)
            wanted.check_labels(path, held)
            _check_use(path, held, content, scale, wanted)
    except DataError as error:
        return str(error)
    return None


def _check_use(
    path: Path, held: ArrayFacts, content: Content, scale: float, wanted: Wanted
) -> None:
    """Raise DataError for too few images, and for entries of classes that may be two things."""
    auto = content == "auto"
    if content == "images" or (auto and held.span.unsigned):
        wanted.check_count(path, held.entries)
    elif auto and held.entries != wanted.images:
        held.span.check_clear(path, scale)


@lru_cache(maxsize=64)
def _held(path: Path, entry: str, key: str) -> ArrayFacts | str:
    """What a file holds, or why it cannot be read; the key of its content is for the cache."""
    try:
        found = load_published(path, entry, LARGEST_ARRAYS)
        values, labels = found.values, found.labels
        check_type(path, values)
    except DataError as error:
        return str(error)
    if not values.numel():
        return f"{path} has shape {tuple(values.shape)}, which holds no values"
    each = None
    if labels is not None and len(labels):
        each = len(labels), int(labels.min()), int(labels.max())
    alone = labels is not None and len(labels.unique()) == len(labels)
    return ArrayFacts(tuple(values.shape), Span.of(values), each, alone)


def check_type(path: Path, values: Tensor) -> None:
    """Raise DataError unless values are integers or floats."""
    if values.is_complex() or values.dtype == torch.bool:
        raise DataError(f"{path} holds {values.dtype}, expected integers or floats")
