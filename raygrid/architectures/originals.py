"""Networks that authors of targeted attacks built for themselves, for images of 32 pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from raygrid.architectures.base import ARCHITECTURES, Architecture
from raygrid.core.lazy import nn
from raygrid.core.registry import Card

_NOTES = "layers as their parameter and operation counts have it"


@ARCHITECTURES.register("alexnet_fc")
@dataclass(frozen=True, kw_only=True)
class AlexNetFc(Architecture):
    """Two 5x5 convolutions with local response norm, 384 and 192 units: 1,756,426 parameters."""

    card = Card(
        paper="Shafahi et al. 2018 (Poison Frogs); as in Schwarzschild et al. 2021, table 2",
        code="aks2203/poisoning-benchmark@97a67ae",
        notes=_NOTES + "; response norm over 9 channels with alpha 0.001 for their mean square, as "
        "in the code. Version 1 had 4 channels",
    )
    version: ClassVar[int] = 2
    sizes: ClassVar[tuple[int, int]] = (32, 32)
    gflop: ClassVar[float] = 0.066
    megabytes: ClassVar[float] = 7.03
    stand_in: ClassVar[str] = "small_alexnet"

    def body(self, image_size: int) -> tuple[nn.Module, int]:
        norm = nn.LocalResponseNorm(9, alpha=0.001, beta=0.75, k=1.0)
        pool = nn.MaxPool2d(3, 2, 1)
        layers: list[nn.Module] = [
            *(nn.Conv2d(3, 64, 5, padding=2), nn.ReLU(), pool, norm),
            *(nn.Conv2d(64, 64, 5, padding=2), nn.ReLU(), norm, pool),
            *(nn.Flatten(), nn.Linear(64 * 8 * 8, 384), nn.ReLU(), nn.Linear(384, 192), nn.ReLU()),
        ]
        return nn.Sequential(*layers), 192


@ARCHITECTURES.register("alexnet_htbd")
@dataclass(frozen=True, kw_only=True)
class AlexNetHtbd(Architecture):
    """AlexNet with 3x3 convolutions and two layers of 4,096 units: 20,126,538 parameters."""

    card = Card(
        paper="Saha et al. 2019 (Hidden Trigger); as in Schwarzschild et al. 2021, table 2",
        code="aks2203/poisoning-benchmark@97a67ae",
        notes=_NOTES,
    )
    sizes: ClassVar[tuple[int, int]] = (32, 32)
    gflop: ClassVar[float] = 0.086
    megabytes: ClassVar[float] = 80.5
    stand_in: ClassVar[str] = "small_alexnet"

    def body(self, image_size: int) -> tuple[nn.Module, int]:
        layers: list[nn.Module] = [
            *(nn.Conv2d(3, 64, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(64, 192, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Flatten()),
            *(nn.Dropout(), nn.Linear(256, 4096), nn.ReLU()),
            *(nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU()),
        ]
        return nn.Sequential(*layers), 4096


@ARCHITECTURES.register("small_alexnet")
@dataclass(frozen=True, kw_only=True)
class SmallAlexNet(Architecture):
    """A 5x5 and a 3x3 convolution with 16 and 32 channels, a layer of 64 units, no batch norm."""

    card = Card(paper="Shafahi et al. 2018, the kind of layers; the network is raygrid's own")
    sizes: ClassVar[tuple[int, int]] = (16, 64)
    gflop: ClassVar[float] = 0.0051
    megabytes: ClassVar[float] = 0.551
    stand_in: ClassVar[str] = "small_alexnet"

    def body(self, image_size: int) -> tuple[nn.Module, int]:
        side = -(-image_size // 4)
        layers: list[nn.Module] = [
            *(nn.Conv2d(3, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
            *(nn.Flatten(), nn.Linear(32 * side**2, 64), nn.ReLU()),
        ]
        return nn.Sequential(*layers), 64


@ARCHITECTURES.register("resnet32_narrow")
@dataclass(frozen=True, kw_only=True)
class ResNet32Narrow(Architecture):
    """ResNet-32 with 16, 32 and 64 channels, shortcuts without weights: 464,154 parameters."""

    card = Card(
        paper="He et al. 2016, section 4.2; the victim of Turner et al. 2018",
        code="aks2203/poisoning-benchmark@97a67ae",
    )
    gflop: ClassVar[float] = 0.138
    megabytes: ClassVar[float] = 1.87
    stand_in: ClassVar[str] = "small_resnet"

    def body(self, image_size: int) -> tuple[nn.Module, int]:
        from raygrid.architectures.networks.padded_block import PaddedBlock

        stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
        blocks: list[nn.Module] = []
        inputs = 16
        for outputs, stride in ((16, 1), (32, 2), (64, 2)):
            for number in range(5):
                blocks.append(PaddedBlock(inputs, outputs, stride if number == 0 else 1))
                inputs = outputs
        return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten()), 64
