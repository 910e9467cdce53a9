"""The types that cross from stage to stage: `Images`, `Poison`, `Target`, `Trigger`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from raygrid.core.errors import DataError
from raygrid.core.lazy import torch
from raygrid.core.seeds import Stream

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Images:
    """A labeled set of images. Never written to: stages hand on new ones.

    pixels: uint8 (N, C, H, W) in [0, 255]; labels: int64 (N,) in [0, classes). The pixels may stay
    in the host's memory while the labels are on a device: they are then sent there in batches.
    fingerprint: names the content; equal fingerprints mean equal pixels and labels.
    """

    pixels: Tensor
    labels: Tensor
    classes: int
    fingerprint: str = ""

    def __post_init__(self) -> None:
        if self.pixels.dtype != torch.uint8 or self.pixels.dim() != 4:
            kind = f"{self.pixels.dtype} {tuple(self.pixels.shape)}"
            raise DataError(f"pixels are {kind}, expected uint8 (N, C, H, W)")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.pixels.shape[:1]:
            kind = f"{self.labels.dtype} {tuple(self.labels.shape)}"
            raise DataError(f"labels are {kind}, expected int64 ({len(self.pixels)},)")

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)"""
        return tuple(self.pixels.shape[1:])  # type: ignore[return-value]

    @property
    def device(self) -> torch.device:
        """Where `floats` are."""
        return self.labels.device

    @property
    def resident(self) -> bool:
        """Whether the pixels are on the device too."""
        return self.pixels.device == self.labels.device

    def rows(self, index: Tensor) -> Images:
        """The images at these positions (int64 indices or a bool mask)."""
        pixels = self.pixels[index.to(self.pixels.device)]
        return replace(self, pixels=pixels, labels=self.labels[index], fingerprint="")

    def with_pixels(self, pixels: Tensor) -> Images:
        """The same labels on other pixels."""
        return replace(self, pixels=pixels, fingerprint="")

    def to(self, device: torch.device | str) -> Images:
        return replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device))

    def beside(self, device: torch.device | str) -> Images:
        """The same for work on a device, with the pixels where they are."""
        return replace(self, labels=self.labels.to(device))

    def blank(self) -> Images:
        """The labels on images of one pixel each, for steps that look at something else."""
        return self.with_pixels(self.pixels[:, :1, :1, :1].to(self.device))

    def floats(self, index: Tensor | slice = slice(None)) -> Tensor:
        """float32 (n, C, H, W) in [0, 1], on the device."""
        if self.resident:
            return self.pixels[index].float().div_(255)
        part = self.pixels[index if isinstance(index, slice) else index.cpu()]
        if self.device.type == "cuda":  # from pinned memory the device fetches it by itself
            part = part.pin_memory()
        return part.to(self.device, non_blocking=True).float().div_(255)


@contextmanager
def left_alone(images: Images, method: str, what: str) -> Iterator[None]:
    """Raise DataError if the block, a method's work on `images`, writes into them.

    What it makes is compared with them, and others use them after it. what: what they are, in
    words for the message.
    """
    before = _writes(images)
    yield
    if _writes(images) != before:
        raise DataError(
            f"{method} writes into the {what} it was given; change a copy: images.pixels.clone()"
        )


def _writes(images: Images) -> list[int]:
    """How often the pixels and the labels were written to; 0 of tensors that nobody counts for."""
    return [0 if t.is_inference() else t._version for t in (images.pixels, images.labels)]


Quant = Literal["round", "trunc"]


def to_uint8(values: Tensor, quant: Quant = "round") -> Tensor:
    """The one way out of float: clip [0, 1] to [0, 255] and round half up. float -> uint8.

    quant: `trunc` cuts fractions of a level off instead, as some published codes do: images get
    half a level darker. Raises DataError for values that are no numbers: a network that diverged,
    never a picture.
    """
    if bool(values.isnan().any()):
        raise DataError("pixels are not numbers (NaN)")
    half = 0.5 if quant == "round" else 0.0
    return values.mul(255).add_(half).floor_().clamp_(0, 255).to(torch.uint8)


def cut_to_levels(values: Tensor) -> Tensor:
    """float32 in [0, 1] cut off to whole levels, in place, as codes do that store bytes on the way.

    Whole levels stay: 128 / 255 * 255 may come out just below 128 in float32.
    """
    return values.mul_(255).add_(1e-3).floor_().clamp_(0, 255).div_(255)


def fingerprint(*tensors: Tensor) -> str:
    """Content hash of tensors: 32 hex digits over dtype, shape and bytes."""
    digest = hashlib.sha256()
    for tensor in tensors:
        array = tensor.cpu().contiguous().numpy()
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.reshape(-1).data)  # as it lies: a set is not copied
    return digest.hexdigest()[:32]


@dataclass(frozen=True)
class Trigger:
    """A patch that replaces pixels: uint8 (C, h, w), its left and top edge in the image."""

    pattern: Tensor
    left: int
    top: int

    def same(self, other: Trigger) -> bool:
        """Whether both do the same to every image."""
        place = (self.left, self.top) == (other.left, other.top)
        return place and torch.equal(self.pattern, other.pattern)

    def apply(self, pixels: Tensor) -> Tensor:
        """Paste on uint8 (N, C, H, W); raise DataError if the patch lies outside the image."""
        height, width = self.pattern.shape[-2:]
        bottom, right = self.top + height, self.left + width
        if self.top < 0 or self.left < 0 or bottom > pixels.shape[-2] or right > pixels.shape[-1]:
            size = f"{pixels.shape[-2]}x{pixels.shape[-1]}"
            raise DataError(f"trigger at ({self.left}, {self.top}) leaves the {size} image")
        out = pixels.clone()
        out[..., self.top : bottom, self.left : right] = self.pattern.to(out.device)
        return out


@dataclass(frozen=True)
class Target:
    """A test image that a targeted attack wants to be classified as `wanted`."""

    index: int
    true_label: int
    wanted: int


def count_at(ratio: float, n: int) -> int:
    """How many of `n` rows are poisoned at a ratio."""
    return int(ratio * n + 1e-9)


def prefix(n: int, ratio: float, stream: Stream) -> Tensor:
    """A share of 0..n-1, int64 ascending: the first entries of one permutation, so nested."""
    order = torch.randperm(n, generator=stream.generator("permutation"))
    return order[: count_at(ratio, n)].sort().values


@dataclass(frozen=True)
class Poison:
    """What an attack leaves: final pixels for some rows of the training set.

    indices: int64 (K,) rows that are replaced; pixels: uint8 (K, C, H, W); labels: int64 (K,).
    withheld: the rows are taken away instead of replaced (the control "clean remainder only").
    An availability attack fills all rows, a targeted one a few, `clean` none.
    """

    indices: Tensor
    pixels: Tensor
    labels: Tensor
    targets: tuple[Target, ...] = ()
    trigger: Trigger | None = None
    withheld: bool = False

    def chosen(self, ratio: float, stream: Stream) -> Tensor:
        """Positions in `indices` that are used at `ratio`: a prefix of one permutation.

        The sets are nested: what is poisoned at 0.2 is poisoned at 0.4 too.
        """
        return prefix(len(self.indices), ratio, stream)

    def overlay(self, clean: Images, ratio: float, stream: Stream) -> tuple[Images, Tensor]:
        """The training set at `ratio` and the bool (N,) mask of rows that the attacker touched.

        With `withheld` the touched rows are gone from the images; the mask still has N entries.
        """
        use = self.chosen(ratio, stream)
        rows = self.indices[use]
        mask = torch.zeros(len(clean), dtype=torch.bool)
        mask[rows] = True
        if self.withheld:
            return clean.rows(~mask), mask
        if len(rows) == 0:
            return clean, mask
        if len(rows) == len(clean) and bool(mask.all()):
            return self._in_place_of(clean), mask
        pixels, labels = clean.pixels.clone(), clean.labels.clone()
        pixels[rows], labels[rows] = self.pixels[use], self.labels[use]
        return replace(clean, pixels=pixels, labels=labels, fingerprint=""), mask

    def _in_place_of(self, clean: Images) -> Images:
        """A poison of every row is the training set: in the usual order nothing is copied."""
        pixels, labels = self.pixels, self.labels
        if not torch.equal(self.indices, torch.arange(len(clean))):
            order = self.indices.argsort()
            pixels, labels = pixels[order], labels[order]
        return Images(pixels, labels, clean.classes)


def moments(pixels: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and sd of each channel of uint8 (N, C, H, W), in [0, 1]; exact, from counts."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, sds = [], []
    for channel in pixels.unbind(1):
        share = torch.bincount(channel.flatten().cpu(), minlength=256).double() / channel.numel()
        mean = float(share @ levels)
        means.append(mean)
        sds.append(max(float(share @ (levels - mean) ** 2) ** 0.5, 1e-6))
    return tuple(means), tuple(sds)
