"""Poisons made elsewhere: perturbations or poisoned images from a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from raygrid.attacks.base import ATTACKS, Attack, AttackContext
from raygrid.attacks.common.fitting import Content, Span, Wanted, check_type, fault_of
from raygrid.core.budget import Budget
from raygrid.core.enforcement import beyond, enforce, size_of_change
from raygrid.core.errors import DataError
from raygrid.core.images import Images, to_uint8
from raygrid.core.lazy import torch
from raygrid.core.registry import Card, Combination, require
from raygrid.storage.published_arrays import Published, content_hash, load_published

if TYPE_CHECKING:
    from torch import Tensor

NEAR_CLEAN = 64 / 255
"""What is never further from the clean images is taken for images; published noise is smaller."""


FILE_SLACK_BYTES, FILE_BYTES_FACTOR = 2**26, 64
"""A file may come to so many bytes, and so many a byte of the dataset: eight arrays of float64."""


@ATTACKS.register("file")
@dataclass(frozen=True, kw_only=True)
class File(Attack):
    """What others published, put on the grid and held to a budget.

    An array of `.pt`, `.npy`, `.npz` or `.pkl` has shape (M, C, H, W) or (M, H, W, C). A
    perturbation has an entry for each training image (M = N, by index), for each class (M =
    classes, by label) or one for all (M = 1, or no M); images come one for each training image.
    Integers count 1/255 steps, floats are in the pixel range [0, 1] after multiplication by
    `scale`. `content=auto` takes uint8 and what lies within 64/255 of the clean images everywhere
    for images; what is never negative and reaches beyond half the range it refuses; all else is a
    perturbation. Folders hold images, side by side or in one folder a class. Files are named by the
    training row in the dataset's own order (which is marked where no label can tell), or, in class
    folders with other names, the sorted files of the k-th sorted folder are for the rows of class k
    in order. Labels beside the values must be the dataset's; values sorted by class go to the rows
    of each class in order, which is marked.
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
    content: Content = "auto"
    scale: float = 1.0  # of float values: 1/255 for a file of levels

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.scale > 0, f"scale is {self.scale}, allowed are positive numbers")

    def resolved(self) -> dict[str, Any]:
        content = content_hash(Path(self.path)) if self.path else ""
        return {**super().resolved(), "path": content}

    def skip(self, combination: Combination) -> str | None:
        if not self.path:
            return "file needs a path: file(path=/where/it/is.pt)"
        path, side = Path(self.path), combination.image_size
        if not (path.is_file() or path.is_dir()):
            return f"{self.path} is not there"
        wanted = (
            Wanted(combination.images, combination.classes, (3, side, side))
            if combination.images
            else None
        )
        return fault_of(path, self.entry, self.content, self.scale, wanted)

    def propose(self, images: Images, context: AttackContext) -> Tensor:
        path, index = Path(self.path), context.index(images)
        if not self.path:
            raise DataError("the attack file needs a path: file(path=/where/it/is.pt)")
        found = load_published(
            path, self.entry, FILE_SLACK_BYTES + FILE_BYTES_FACTOR * images.pixels.numel()
        )
        values = _as_planes(path, found.values, images)
        if len(values) > 1:
            rows = _rows(path, found, images, context)
            values = values[rows.argsort()] if len(values) == len(images) else values
        if self._are_images(path, values, images):
            _wanted(images).check_count(path, len(values))
            pixels = self._pixels(path, values)
            if found.rows is not None and found.labels is None:
                self._check_order(path, pixels, images, context)
            return pixels[index]
        values = self._perturbation(path, values)
        if len(values) == 1:
            return values.expand(len(index), -1, -1, -1)
        return values[index if len(values) == len(images) else images.labels[index]]

    def pixels(self, images: Images, context: AttackContext) -> Tensor:
        """Final uint8 pixels, with a mark of how many images the budget changed and how much."""
        clean, limit = images.pixels[self.index(images, context)], self.budget
        if limit.value == 0:
            return clean
        whole = enforce(clean, self.propose(images, context).cpu(), Budget("linf", 1.0))
        over = beyond(clean, whole, limit)
        if bool(over.any()) and limit.norm != "l0":
            size = float(size_of_change(clean, whole, limit.norm).max())
            largest = round(size * 255) / 255 if limit.norm == "linf" else round(size, 3)
            context.marks.append(
                f"file: {int(over.sum())} of {len(clean)} images were clipped to {limit}; "
                f"the largest change was {Budget(limit.norm, largest)}"
            )
        return enforce(clean, whole, limit)

    def _are_images(self, path: Path, values: Tensor, images: Images) -> bool:
        if self.content != "auto":
            return self.content == "images"
        if values.dtype == torch.uint8:
            return True
        span = Span.of(values)
        step = span.step(self.scale)
        if span.most * step > NEAR_CLEAN and len(values) == len(images):
            if span.least >= 0 and _near(values, images, step, 0.0):
                return True
            if _near(values, images, step / 2, 0.5):
                raise DataError(
                    f"{path} holds images normalized to -1 to 1; save them in 0 to 1 and say "
                    f"content=images"
                )
        span.check_clear(path, self.scale)
        return False

    def _check_order(
        self, path: Path, pixels: Tensor, images: Images, context: AttackContext
    ) -> None:
        """Nothing but the pictures says whether rows were counted as here; it is marked.

        Raises DataError where most are no nearer to the clean image of their row than to another,
        unless `content=images` was said.
        """
        own = _nearer(pixels, images)
        if own <= len(images) * 2 // 3 and self.content == "auto":
            raise DataError(
                f"{own} of {len(images)} pictures in {path} are nearer to the clean image of the "
                "row that they are named by than to another image, so their rows were counted in "
                "another order: official files and class folders of a dataset have different "
                "ones. Use the form of the dataset with which the poison was made; "
                "content=images takes them as they are"
            )
        context.marks.append("file: names of pictures were taken for rows in the dataset's order")

    def _pixels(self, path: Path, values: Tensor) -> Tensor:
        Span.of(values).check(path, "images", self.scale)
        if not values.is_floating_point():
            return values.to(torch.uint8)
        return to_uint8(values.float() * self.scale)

    def _perturbation(self, path: Path, values: Tensor) -> Tensor:
        span = Span.of(values)
        span.check(path, "perturbation", self.scale)
        return values.float() * span.step(self.scale)


def _wanted(images: Images) -> Wanted:
    return Wanted(len(images), images.classes, images.shape)


def _near(values: Tensor, images: Images, step: float, shift: float) -> bool:
    """Whether values * step + shift lie within 64/255 of the clean images everywhere."""
    pairs = zip(values.split(1024), images.pixels.split(1024), strict=True)
    return all(
        bool((v.float() * step + shift - clean.float() / 255).abs().max() <= NEAR_CLEAN + 1e-6)
        for v, clean in pairs
    )


def _nearer(pixels: Tensor, images: Images) -> int:
    """How many pictures are nearer to the clean image of their own row than to another's."""
    others, found = images.pixels.roll(len(images) // 2, 0), 0
    parts = (pixels.split(1024), images.pixels.split(1024), others.split(1024))
    for shown, own, other in zip(*parts, strict=True):
        near = (shown.int() - own.int()).abs().flatten(1).sum(1)
        found += int((near < (shown.int() - other.int()).abs().flatten(1).sum(1)).sum())
    return found


def _as_planes(path: Path, values: Tensor, images: Images) -> Tensor:
    """(M, C, H, W) of real numbers: M is the number of images, of classes or 1; else DataError."""
    channels, height, width = images.shape
    check_type(path, values)
    _wanted(images).check(path, tuple(values.shape))
    last = (height, width, channels)
    if tuple(values.shape) in (images.shape, last):
        values = values.unsqueeze(0)
    return values.permute(0, 3, 1, 2) if tuple(values.shape[1:]) == last else values


def _rows(path: Path, found: Published, images: Images, context: AttackContext) -> Tensor:
    """The training row of each published entry, int64; DataError if labels or names contradict.

    Entries that are sorted by class are for the rows of each class in order, which is marked.
    """
    every, labels = torch.arange(len(images)), found.labels
    rows = every if found.rows is None else found.rows
    if not torch.equal(rows.sort().values, every):
        raise DataError(f"the names in {path} are not the rows 0 to {len(images) - 1}")
    if labels is None or (len(labels) != len(images) and torch.equal(labels, labels.unique())):
        return rows
    by_class = images.labels.argsort(stable=True)
    if len(labels) != len(images):
        raise DataError(f"{path} has {len(labels)} labels, expected {len(images)}")
    if found.rows is not None and found.numbered is not None:  # where 10 sorts before 2
        labels = min(labels, found.numbered, key=lambda given: _differ(images, rows, given))
    if not (wrong := _differ(images, rows, labels)):
        return rows
    if found.rows is None and torch.equal(images.labels[by_class], labels):
        context.marks.append("file: entries in class order were taken for the rows of each class")
        return by_class
    raise DataError(f"the classes of {wrong} entries in {path} are not those of the dataset")


def _differ(images: Images, rows: Tensor, labels: Tensor) -> int:
    """How many rows have another class than these labels say."""
    return int((images.labels[rows] != labels).sum())
