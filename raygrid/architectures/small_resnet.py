"""A residual network that trains in seconds on a CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from raygrid.architectures.base import ARCHITECTURES, Architecture
from raygrid.core.lazy import nn
from raygrid.core.registry import Card, require


@ARCHITECTURES.register("small_resnet")
@dataclass(frozen=True, kw_only=True)
class SmallResNet(Architecture):
    """A 3x3 convolution of stride 2, three basic blocks with 1, 2 and 4 times `width` channels."""

    card = Card(paper="He et al. 2016, the block; the network is raygrid's own")
    gflop: ClassVar[float] = 0.0062
    megabytes: ClassVar[float] = 0.315
    stand_in: ClassVar[str] = "small_resnet"

    width: int = 16  # channels of the first layer

    def __post_init__(self) -> None:
        require(1 <= self.width <= 512, f"width is {self.width}, allowed are 1 to 512")

    def body(self, image_size: int) -> tuple[nn.Module, int]:
        from torchvision.models.resnet import BasicBlock

        from raygrid.architectures.networks.projected_block import projected_block

        w = self.width
        stem = [nn.Conv2d(3, w, 3, 2, 1, bias=False), nn.BatchNorm2d(w), nn.ReLU(inplace=True)]
        blocks = [BasicBlock(w, w), projected_block(w, 2 * w), projected_block(2 * w, 4 * w)]
        return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten()), 4 * w
