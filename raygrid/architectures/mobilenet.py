"""MobileNets, with strides for small images and without."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from raygrid.architectures.base import ARCHITECTURES, Architecture, plain_init
from raygrid.core.lazy import nn
from raygrid.core.registry import Card


@ARCHITECTURES.register("mobilenet")
@dataclass(frozen=True, kw_only=True)
class MobileNet(Architecture):
    """MobileNet (V1) with ReLU: 3,217,226 parameters for 10 classes."""

    card = Card(
        paper="Howard et al. 2017",
        code="timm mobilenetv1_100, first stride 1, as in kuangliu/pytorch-cifar",
        notes="224-pixel images keep timm's own first stride",
    )
    gflop: ClassVar[float] = 0.093
    megabytes: ClassVar[float] = 13
    stand_in: ClassVar[str] = "small_mobilenet"

    def body(self, image_size: int) -> tuple[nn.Module, int]:
        import timm

        net = timm.create_model("mobilenetv1_100", num_classes=0, act_layer=nn.ReLU)
        if image_size < 112:
            net.conv_stem.stride = (1, 1)
        plain_init(net)
        return net, net.num_features


@ARCHITECTURES.register("mobilenetv2")
@dataclass(frozen=True, kw_only=True)
class MobileNetV2(Architecture):
    """MobileNetV2 with the first two strides 1: 2,296,922 parameters for 10 classes."""

    card = Card(
        paper="Sandler et al. 2018",
        code="the network of kuangliu/pytorch-cifar, as in lafeat/apbench@9a6fb91 and "
        "aks2203/poisoning-benchmark@97a67ae",
        notes="ReLU, and projections on shortcuts that change the number of channels; version 1 "
        "was torchvision's, with ReLU6 and 60,240 weights fewer. 224-pixel images have the paper's "
        "strides",
    )
    version: ClassVar[int] = 2
    gflop: ClassVar[float] = 0.182
    megabytes: ClassVar[float] = 9.33
    stand_in: ClassVar[str] = "small_mobilenet"

    def body(self, image_size: int) -> tuple[nn.Module, int]:
        from raygrid.architectures.networks.mobilenetv2 import LAST_WIDTH, mobilenetv2_body

        return mobilenetv2_body((1, 1) if image_size < 112 else (2, 2)), LAST_WIDTH


@ARCHITECTURES.register("mobilenetv2_unpatched")
@dataclass(frozen=True, kw_only=True)
class MobileNetV2Unpatched(Architecture):
    """MobileNetV2 as it is for 224 pixels, whatever the size: 1x1 features at 32 pixels."""

    card = Card(
        paper="Sandler et al. 2018",
        code="torchvision.models.mobilenetv2; yuyi-sd/D-VAE trains it so",
        notes="explains the 83.61 % of clean CIFAR-10 in the D-VAE paper, table 2",
    )
    sizes: ClassVar[tuple[int, int]] = (32, 224)
    gflop: ClassVar[float] = 0.0122
    megabytes: ClassVar[float] = 9.08
    stand_in: ClassVar[str] = "small_mobilenet"

    def body(self, image_size: int) -> tuple[nn.Module, int]:
        from torchvision.models import mobilenet_v2

        net = mobilenet_v2(weights=None)
        net.classifier = net.classifier[0]  # the dropout stays, the head is the network's
        return net, net.last_channel


@ARCHITECTURES.register("small_mobilenet")
@dataclass(frozen=True, kw_only=True)
class SmallMobileNet(Architecture):
    """A stem of stride 2, three inverted residual blocks of 16, 32 and 64 channels."""

    card = Card(paper="Sandler et al. 2018, the block; the network is raygrid's own")
    gflop: ClassVar[float] = 0.00325
    megabytes: ClassVar[float] = 0.0935
    stand_in: ClassVar[str] = "small_mobilenet"

    def body(self, image_size: int) -> tuple[nn.Module, int]:
        from torchvision.models.mobilenetv2 import InvertedResidual

        stem = [nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6(inplace=True)]
        sizes = ((16, 16, 1), (16, 32, 2), (32, 64, 2))
        blocks = [InvertedResidual(*size, expand_ratio=4) for size in sizes]
        return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten()), 64
