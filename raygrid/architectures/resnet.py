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

    def body(self, image_size: int) -> tuple[nn.Module, int]:
        import torchvision.models as tv

        net = getattr(tv, self.model)(weights=None)
        if image_size < 112:
            net.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
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


@ARCHITECTURES.register("resnet34")
@dataclass(frozen=True, kw_only=True)
class ResNet34(_ResNet):
    """ResNet-34: 21,282,122 parameters for 10 classes."""

    model: ClassVar[str] = "resnet34"
    gflop: ClassVar[float] = 2.32
    stand_in: ClassVar[str] = "small_resnet"


@ARCHITECTURES.register("resnet50")
@dataclass(frozen=True, kw_only=True)
class ResNet50(_ResNet):
    """ResNet-50: 23,520,842 parameters for 10 classes."""

    model: ClassVar[str] = "resnet50"
    gflop: ClassVar[float] = 2.60
    stand_in: ClassVar[str] = "small_resnet"
