"""CIFAR-100."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from raygrid.core.registry import Card
from raygrid.datasets.base import DATASETS
from raygrid.datasets.common.cifar import Cifar

_CLASS_NAMES = """
    apple, aquarium fish, baby, bear, beaver, bed, bee, beetle, bicycle, bottle, bowl, boy,
    bridge, bus, butterfly, camel, can, castle, caterpillar, cattle, chair, chimpanzee, clock,
    cloud, cockroach, couch, crab, crocodile, cup, dinosaur, dolphin, elephant, flatfish,
    forest, fox, girl, hamster, house, kangaroo, keyboard, lamp, lawn mower, leopard, lion,
    lizard, lobster, man, maple tree, motorcycle, mountain, mouse, mushroom, oak tree, orange,
    orchid, otter, palm tree, pear, pickup truck, pine tree, plain, plate, poppy, porcupine,
    possum, rabbit, raccoon, ray, road, rocket, rose, sea, seal, shark, shrew, skunk,
    skyscraper, snail, snake, spider, squirrel, streetcar, sunflower, sweet pepper, table,
    tank, telephone, television, tiger, tractor, train, trout, tulip, turtle, wardrobe, whale,
    willow tree, wolf, woman, worm
"""


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
    class_names: ClassVar[tuple[str, ...]] = tuple(" ".join(_CLASS_NAMES.split()).split(", "))
    mean: ClassVar[tuple[float, float, float]] = (0.5071, 0.4867, 0.4408)
    std: ClassVar[tuple[float, float, float]] = (0.2675, 0.2565, 0.2761)
