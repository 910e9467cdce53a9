"""LeNet-5 for color images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from raygrid.architectures.base import ARCHITECTURES, Architecture
from raygrid.core.lazy import nn
from raygrid.core.registry import Card


@ARCHITECTURES.register("lenet")
@dataclass(frozen=True, kw_only=True)
class LeNet(Architecture):
    """Two 5x5 convolutions of 6 and 16 channels, layers of 120 and 84: 62,006 parameters.

    With ReLU and max-pooling, without batch norm; the count is for 32 pixels and 10 classes.
    """

    card = Card(
        paper="LeCun et al. 1998",
        code="layers as in kuangliu/pytorch-cifar, which APBench carries",
    )
    sizes: ClassVar[tuple[int, int]] = (16, 64)
    multiple: ClassVar[int] = 4
    gflop: ClassVar[float] = 0.0013
    megabytes: ClassVar[float] = 0.25
    stand_in: ClassVar[str] = "lenet"

    def body(self, image_size: int) -> tuple[nn.Module, int]:
        side = ((image_size - 4) // 2 - 4) // 2
        layers: list[nn.Module] = [
            *(nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
            *(nn.Linear(16 * side**2, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU()),
        ]
        return nn.Sequential(*layers), 84
