"""Poisons made elsewhere: perturbations or poisoned images from a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from raygrid.attacks.base import ATTACKS, Attack, AttackContext
from raygrid.attacks.common.arrays import content_hash, load_array, load_class_folders
from raygrid.core.budget import Budget
from raygrid.core.errors import DataError
from raygrid.core.images import Images, to_uint8
from raygrid.core.lazy import torch
from raygrid.core.registry import Card, Combination, require

if TYPE_CHECKING:
    from torch import Tensor


@ATTACKS.register("file")
@dataclass(frozen=True, kw_only=True)
class File(Attack):
    """What others published, put on the grid and held to a budget.

    An array of `.pt`, `.npy` or `.npz` has shape (M, C, H, W) or (M, H, W, C). A perturbation has
    an entry for each training image (M = N, by index) or for each class (M = classes, by label);
    images come one for each training image. Integers count 1/255 steps, floats are in the pixel
    range [0, 1] after multiplication by `scale`. `content=auto` takes uint8 for images and every
    other type for a perturbation. Class folders hold images: files named by the training row, or,
    with other names, the sorted files of the k-th sorted folder for the rows of class k in order.
    """

    card = Card(
        paper="none; whatever the file's source is",
        needs="a file or folder at `path` on every machine that makes the poison",
        cost="reading the file",
        notes="the key follows the content of the file, not its name or place",
    )
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l0")
    seeded: ClassVar[bool] = False

    budget: Budget = Budget("linf", 1.0)  # by default as published
    path: str = ""
    entry: str = ""  # which array, for files with several
    content: Literal["auto", "perturbation", "images"] = "auto"
    scale: float = 1.0  # of float values: 1/255 for a file of levels

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.scale > 0, f"scale is {self.scale}, allowed are positive numbers")

    def resolved(self) -> dict[str, Any]:
        content = content_hash(Path(self.path)) if self.path else ""
        return {**super().resolved(), "path": content}

    def skip(self, cell: Combination) -> str | None:
        if not self.path:
            return "file needs a path: file(path=/where/it/is.pt)"
        return None if Path(self.path).exists() else f"{self.path} is not there"

    def propose(self, images: Images, context: AttackContext) -> Tensor:
        path, index = Path(self.path), context.index(images)
        if not self.path:
            raise DataError("the attack file needs a path: file(path=/where/it/is.pt)")
        if path.is_dir():
            return _by_row(path, images)[index]
        values = _as_planes(path, load_array(path, self.entry), images)
        if self._are_images(values):
            if len(values) != len(images):
                raise DataError(f"{path} has {len(values)} images, expected {len(images)}")
            return self._pixels(path, values)[index]
        rows = index if len(values) == len(images) else images.labels[index]
        return self._perturbation(path, values)[rows]

    def _are_images(self, values: Tensor) -> bool:
        if self.content == "auto":
            return values.dtype == torch.uint8
        return self.content == "images"

    def _pixels(self, path: Path, values: Tensor) -> Tensor:
        if not values.is_floating_point():
            _check_range(path, values, 0, 255)
            return values.to(torch.uint8)
        values = values.float() * self.scale
        _check_range(path, values, 0, 1)
        return to_uint8(values)

    def _perturbation(self, path: Path, values: Tensor) -> Tensor:
        if values.dtype == torch.uint8:
            raise DataError(f"{path} is uint8 and has no negative values: it holds content=images")
        step = self.scale if values.is_floating_point() else 1 / 255
        values = values.float() * step
        _check_range(path, values, -1, 1)
        return values


def _check_range(path: Path, values: Tensor, low: float, high: float) -> None:
    least, most = float(values.min()), float(values.max())
    slack = 1e-5  # of float arithmetic
    if not (low - slack <= least and most <= high + slack):  # NaN fails too
        raise DataError(
            f"{path} has values from {least:.4g} to {most:.4g}, expected {low} to {high}; "
            "scale=1/255 turns a float file of levels into fractions"
        )


def _as_planes(path: Path, values: Tensor, images: Images) -> Tensor:
    """(M, C, H, W) of real numbers, M the number of images or of classes; DataError otherwise."""
    channels, height, width = images.shape
    expected = f"({len(images)} or {images.classes}, {channels}, {height}, {width})"
    if values.is_complex() or values.dtype == torch.bool:
        raise DataError(f"{path} holds {values.dtype}, expected integers or floats")
    if tuple(values.shape[1:]) == (height, width, channels):
        values = values.permute(0, 3, 1, 2)
    fits = tuple(values.shape[1:]) == images.shape
    if not fits or len(values) not in (len(images), images.classes):
        raise DataError(
            f"{path} has shape {tuple(values.shape)}, expected {expected} or channels last"
        )
    return values


def _by_row(path: Path, images: Images) -> Tensor:
    """Pictures of class folders in the order of the training rows, uint8 (N, C, H, W)."""
    pixels, labels, names = load_class_folders(path)
    if pixels.shape != images.pixels.shape:
        shape, expected = tuple(pixels.shape), tuple(images.pixels.shape)
        raise DataError(f"{path} has pictures {shape}, expected {expected}")
    rows = images.labels.argsort(stable=True)
    if all(name.isdecimal() for name in names):
        rows = torch.tensor([int(name) for name in names])
    if not torch.equal(rows.sort().values, torch.arange(len(images))):
        raise DataError(f"the names in {path} are not the rows 0 to {len(images) - 1}")
    if not torch.equal(images.labels[rows], labels):
        raise DataError(f"the classes of the pictures in {path} are not those of the dataset")
    out = torch.empty_like(pixels)
    out[rows] = pixels
    return out
