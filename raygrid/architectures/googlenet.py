"""GoogLeNet with a stem for small images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from raygrid.architectures.base import ARCHITECTURES, Architecture, plain_init
from raygrid.core.lazy import nn
from raygrid.core.registry import Card


@ARCHITECTURES.register("googlenet")
@dataclass(frozen=True, kw_only=True)
class GoogLeNet(Architecture):
    """GoogLeNet with batch norm, without auxiliary heads: 5,602,474 parameters for 10 classes."""

    card = Card(
        paper="Szegedy et al. 2015",
        code="torchvision.models.googlenet, first stride 1, first two max-pools left out",
        notes="torchvision's modules, whose 5x5 branch is a 3x3 convolution. Kuangliu's network, "
        "which APBench carries but trains in none of its tables, is another one: a single "
        "convolution as stem, two 3x3 convolutions in that branch, biases, 1e-5 instead of 1e-3 "
        "added to the variances of batch norms, both max-pools 3 wide where torchvision's second "
        "is 2 (6,166,250 parameters). 224-pixel images keep torchvision's own stem",
    )
    gflop: ClassVar[float] = 2.90
    megabytes: ClassVar[float] = 22.5
    stand_in: ClassVar[str] = "small_googlenet"

    def body(self, image_size: int) -> tuple[nn.Module, int]:
        from torchvision.models import googlenet

        net = googlenet(weights=None, aux_logits=False, init_weights=False)
        if image_size < 112:
            net.conv1.conv = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
            net.maxpool1 = net.maxpool2 = nn.Identity()
        net.dropout = nn.Identity()
        net.fc = nn.Identity()
        plain_init(net)
        return net, 1024


@ARCHITECTURES.register("small_googlenet")
@dataclass(frozen=True, kw_only=True)
class SmallGoogLeNet(Architecture):
    """A stem of stride 2, inception modules of 32, 64 and 64 channels, a max-pool before two."""

    card = Card(paper="Szegedy et al. 2015, the module; the network is raygrid's own")
    gflop: ClassVar[float] = 0.0022
    megabytes: ClassVar[float] = 0.0749
    stand_in: ClassVar[str] = "small_googlenet"

    def body(self, image_size: int) -> tuple[nn.Module, int]:
        from torchvision.models.googlenet import BasicConv2d, Inception

        layers: list[nn.Module] = [
            BasicConv2d(3, 16, kernel_size=3, stride=2, padding=1),
            Inception(16, 8, 8, 16, 4, 4, 4),
            nn.MaxPool2d(2),
            Inception(32, 16, 16, 32, 8, 8, 8),
            nn.MaxPool2d(2),
            Inception(64, 16, 16, 32, 8, 8, 8),
        ]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), 64
