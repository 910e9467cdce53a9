"""ResNets with the CIFAR stem: 3x3 convolution, no max-pool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from raygrid.architectures.base import ARCHITECTURES, Architecture, plain_init
from raygrid.core.lazy import nn
from raygrid.core.registry import Card

_CARD = Card(
    paper="He et al. 2016",
    code="torchvision.models.resnet with the stem of kuangliu/pytorch-cifar",
    notes="weights start as PyTorch's layers do (Kaiming uniform), as in kuangliu's networks; "
    "224-pixel images keep torchvision's own stem",
)


@dataclass(frozen=True, kw_only=True)
class _ResNet(Architecture):
    model: ClassVar[str]
    card = _CARD

    def stem(self) -> nn.Conv2d:
        """The first layer for small images; no max-pool follows."""
        return nn.Conv2d(3, 64, 3, 1, 1, bias=False)

    def body(self, image_size: int) -> tuple[nn.Module, int]:
        import torchvision.models as tv

        net = getattr(tv, self.model)(weights=None)
        if image_size < 112:
            net.conv1 = self.stem()
            net.maxpool = nn.Identity()
        width = net.fc.in_features
        net.fc = nn.Identity()
        plain_init(net)
        return net, width


@ARCHITECTURES.register("resnet18")
@dataclass(frozen=True, kw_only=True)
class ResNet18(_ResNet):
    """ResNet-18: 11,173,962 parameters for 10 classes.

    Most tables have no other network; its stand-in is that of the quick attacks' surrogates.
    """

    model: ClassVar[str] = "resnet18"
    gflop: ClassVar[float] = 1.11
    megabytes: ClassVar[float] = 44.7


@ARCHITECTURES.register("resnet34")
@dataclass(frozen=True, kw_only=True)
class ResNet34(_ResNet):
    """ResNet-34: 21,282,122 parameters for 10 classes."""

    model: ClassVar[str] = "resnet34"
    gflop: ClassVar[float] = 2.32
    megabytes: ClassVar[float] = 85.2
    stand_in: ClassVar[str] = "small_resnet"


@ARCHITECTURES.register("resnet34_strided")
@dataclass(frozen=True, kw_only=True)
class ResNet34Strided(ResNet34):
    """ResNet-34 whose first layer halves 64-pixel images: 21,289,802 parameters for 10 classes."""

    card = Card(
        paper="He et al. 2016; the victim on Tiny ImageNet of Schwarzschild et al. 2021",
        code="aks2203/poisoning-benchmark@97a67ae",
        notes="a 7x7 convolution with stride 2 and no max-pool after it",
    )
    sizes: ClassVar[tuple[int, int]] = (32, 64)
    gflop: ClassVar[float] = 0.58
    megabytes: ClassVar[float] = 85.2

    def stem(self) -> nn.Conv2d:
        return nn.Conv2d(3, 64, 7, 2, 3, bias=False)


@ARCHITECTURES.register("resnet50")
@dataclass(frozen=True, kw_only=True)
class ResNet50(_ResNet):
    """ResNet-50: 23,520,842 parameters for 10 classes."""

    model: ClassVar[str] = "resnet50"
    gflop: ClassVar[float] = 2.60
    megabytes: ClassVar[float] = 94.3
    stand_in: ClassVar[str] = "small_resnet"
