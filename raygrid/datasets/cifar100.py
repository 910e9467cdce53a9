"""CIFAR-100."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from raygrid.core.registry import Card
from raygrid.datasets.base import DATASETS
from raygrid.datasets.common.cifar import Cifar


@DATASETS.register("cifar100")
@dataclass(frozen=True, kw_only=True)
class Cifar100(Cifar):
    """60,000 images of 100 fine classes, 32x32. Official form: `cifar-100-python/`."""

    card = Card(
        paper="Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images",
        code="torchvision.datasets.CIFAR100",
    )
    url: ClassVar[str] = "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"
    md5: ClassVar[str] = "eb9058c3a382ffc7106e4002c42a8d85"
    batches: ClassVar[str] = "cifar-100-python"
    label: ClassVar[str] = "fine_labels"
    train_files: ClassVar[Mapping[str, str]] = {"train": "16019d7e3df5f24257cddd939b257f8d"}
    test_files: ClassVar[Mapping[str, str]] = {"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"}
    classes: ClassVar[int] = 100
    mean: ClassVar[tuple[float, float, float]] = (0.5071, 0.4867, 0.4408)
    std: ClassVar[tuple[float, float, float]] = (0.2675, 0.2565, 0.2761)
