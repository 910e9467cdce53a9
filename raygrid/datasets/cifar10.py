"""CIFAR-10."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from raygrid.core.registry import Card
from raygrid.datasets.base import DATASETS
from raygrid.datasets.common.cifar import Cifar


@DATASETS.register("cifar10")
@dataclass(frozen=True, kw_only=True)
class Cifar10(Cifar):
    """60,000 images of 10 classes, 32x32. Official form: `cifar-10-batches-py/`.

    Indices follow the batches 1 to 5; class folders have another order, so set-ups of targeted
    attacks that name images by index need the official form.
    """

    card = Card(
        paper="Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images",
        code="torchvision.datasets.CIFAR10",
        notes="std as in the contrastive sources; others print (0.2470, 0.2435, 0.2616)",
    )
    url: ClassVar[str] = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
    md5: ClassVar[str] = "c58f30108f718f92721af3b95e74349a"
    batches: ClassVar[str] = "cifar-10-batches-py"
    label: ClassVar[str] = "labels"
    train_files: ClassVar[Mapping[str, str]] = {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    }
    test_files: ClassVar[Mapping[str, str]] = {"test_batch": "40351d587109b95175f43aff81a1287e"}
    classes: ClassVar[int] = 10
    class_names: ClassVar[tuple[str, ...]] = (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    )
    mean: ClassVar[tuple[float, float, float]] = (0.4914, 0.4822, 0.4465)
    std: ClassVar[tuple[float, float, float]] = (0.2023, 0.1994, 0.2010)
    pretraining: ClassVar[str] = "cifar100"
