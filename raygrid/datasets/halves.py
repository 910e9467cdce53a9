"""Halves of other datasets by class: extractors are pre-trained on one, victims on the other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from raygrid.core.images import Images
from raygrid.core.lazy import torch
from raygrid.core.registry import Card
from raygrid.datasets.base import DATASETS, Dataset, Facts, Split
from raygrid.datasets.photo_digits import PhotoDigits
from raygrid.datasets.tinyimagenet import TinyImageNet

_CARD = Card(
    paper="Schwarzschild et al. 2021 (Just How Toxic is Data Poisoning?), section 4",
    code="aks2203/poisoning-benchmark@97a67ae",
    notes="indices of set-ups count within the half",
)


@dataclass(frozen=True, kw_only=True)
class Half(Dataset):
    """The classes of `of` in [low, high), numbered from 0; the order of the images stays."""

    card = _CARD
    of: ClassVar[Dataset]
    low: ClassVar[int]
    high: ClassVar[int]

    def source(self, root: Path) -> str:
        return self.of.source(root)

    def describe(self, root: Path) -> Facts:
        """Sizes as if all classes of the whole had equally many images."""
        whole = self.of.describe(root)
        share = (self.high - self.low) / whole.classes
        train, test = (round(n * share) for n in (whole.train_size, whole.test_size))
        return Facts(self.high - self.low, whole.image_size, train, test, looked_at=False)

    def load(self, root: Path) -> Split:
        whole = self.of.load(root)
        return Split(self._part(whole.train), self._part(whole.test))

    def _part(self, images: Images) -> Images:
        inside = (images.labels >= self.low) & (images.labels < self.high)
        found = images.rows(torch.as_tensor(inside))
        return replace(found, labels=found.labels - self.low, classes=self.high - self.low)

    def shares_images(self, other: Dataset) -> bool:
        if isinstance(other, Half):
            same = self.of.id == other.of.id
            return same and max(self.low, other.low) < min(self.high, other.high)
        return self.of.id == other.id

    def named_classes(self, root: Path) -> tuple[str, ...]:
        return self.of.named_classes(root)[self.low : self.high]

    def download(self, root: Path) -> None:
        self.of.download(root)


@dataclass(frozen=True, kw_only=True)
class _TinyHalf(Half):
    of: ClassVar[Dataset] = TinyImageNet()
    classes: ClassVar[int] = 100
    image_size: ClassVar[int] = TinyImageNet.image_size
    train_size: ClassVar[int] = 50_000
    test_size: ClassVar[int] = 5_000
    mean: ClassVar[tuple[float, float, float]] = TinyImageNet.mean
    std: ClassVar[tuple[float, float, float]] = TinyImageNet.std


@DATASETS.register("tinyimagenet_first")
@dataclass(frozen=True, kw_only=True)
class TinyImageNetFirst(_TinyHalf):
    """Classes 0 to 99 of Tiny ImageNet."""

    low: ClassVar[int] = 0
    high: ClassVar[int] = 100


@DATASETS.register("tinyimagenet_last")
@dataclass(frozen=True, kw_only=True)
class TinyImageNetLast(_TinyHalf):
    """Classes 100 to 199 of Tiny ImageNet."""

    low: ClassVar[int] = 100
    high: ClassVar[int] = 200
    pretraining: ClassVar[str] = "tinyimagenet_first"


@dataclass(frozen=True, kw_only=True)
class _DigitsHalf(Half):
    of: ClassVar[Dataset] = PhotoDigits()
    image_size: ClassVar[int] = PhotoDigits.image_size
    augmentation: ClassVar[str] = PhotoDigits.augmentation

    def describe(self, root: Path) -> Facts:
        return replace(self.nominal, looked_at=True)


@DATASETS.register("photo_digits_first")
@dataclass(frozen=True, kw_only=True)
class PhotoDigitsFirst(_DigitsHalf):
    """The digits 0 to 4 of `photo_digits`."""

    low: ClassVar[int] = 0
    high: ClassVar[int] = 5
    classes: ClassVar[int] = 5
    train_size: ClassVar[int] = 2136
    test_size: ClassVar[int] = 567


@DATASETS.register("photo_digits_last")
@dataclass(frozen=True, kw_only=True)
class PhotoDigitsLast(_DigitsHalf):
    """The digits 5 to 9 of `photo_digits`."""

    low: ClassVar[int] = 5
    high: ClassVar[int] = 10
    classes: ClassVar[int] = 5
    train_size: ClassVar[int] = 2175
    test_size: ClassVar[int] = 513
    pretraining: ClassVar[str] = "photo_digits_first"
