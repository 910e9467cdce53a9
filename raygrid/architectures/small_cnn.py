"""A three-layer convolutional network that trains in seconds on a CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from raygrid.architectures.base import ARCHITECTURES, Architecture
from raygrid.core.lazy import nn
from raygrid.core.registry import Card, require


@ARCHITECTURES.register("small_cnn")
@dataclass(frozen=True, kw_only=True)
class SmallCnn(Architecture):
    """3x3 convolutions with 1, 2 and 4 times `width` channels, the first two of stride 2."""

    card = Card(paper="none; the network of the small-scale checks", code="none")
    gflop: ClassVar[float] = 0.0032
    megabytes: ClassVar[float] = 0.0983

    width: int = 16  # channels of the first layer

    def __post_init__(self) -> None:
        require(1 <= self.width <= 512, f"width is {self.width}, allowed are 1 to 512")

    def body(self, image_size: int) -> tuple[nn.Module, int]:
        w = self.width
        layers = [*_block(3, w, 2), *_block(w, 2 * w, 2), *_block(2 * w, 4 * w, 1)]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), 4 * w


def _block(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
