"""VGGs with batch norm and one linear layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from raygrid.architectures.base import ARCHITECTURES, Architecture
from raygrid.core.lazy import nn
from raygrid.core.registry import Card

_CARD = Card(
    paper="Simonyan and Zisserman 2015",
    code="torchvision.models.vgg with the head of kuangliu/pytorch-cifar",
)


@dataclass(frozen=True, kw_only=True)
class _Vgg(Architecture):
    plan: ClassVar[str]
    card = _CARD
    sizes: ClassVar[tuple[int, int]] = (32, 224)  # five halvings
    stand_in: ClassVar[str] = "small_vgg"

    def body(self, image_size: int) -> tuple[nn.Module, int]:
        from torchvision.models import vgg

        layers = vgg.make_layers(vgg.cfgs[self.plan], batch_norm=True)
        return nn.Sequential(layers, self.last_pool(), nn.Flatten()), 512

    def last_pool(self) -> nn.Module:
        """What reduces the last map to a value for each channel."""
        return nn.AdaptiveAvgPool2d(1)


@ARCHITECTURES.register("vgg11")
@dataclass(frozen=True, kw_only=True)
class Vgg11(_Vgg):
    """VGG-11 with batch norm: 9,231,114 parameters for 10 classes."""

    plan: ClassVar[str] = "A"
    gflop: ClassVar[float] = 0.306
    megabytes: ClassVar[float] = 36.9


@ARCHITECTURES.register("vgg16")
@dataclass(frozen=True, kw_only=True)
class Vgg16(_Vgg):
    """VGG-16 with batch norm: 14,728,266 parameters for 10 classes."""

    plan: ClassVar[str] = "D"
    gflop: ClassVar[float] = 0.626
    megabytes: ClassVar[float] = 58.9


@ARCHITECTURES.register("vgg16_max")
@dataclass(frozen=True, kw_only=True)
class Vgg16Max(Vgg16):
    """VGG-16 that reduces what is left of 64-pixel images, 2x2 values, by their largest.

    At 32 pixels, where one value is left, it is vgg16.
    """

    card = Card(
        paper="Simonyan and Zisserman 2015; as in Schwarzschild et al. 2021 on Tiny ImageNet",
        code="aks2203/poisoning-benchmark@97a67ae",
        notes="ends in a second max-pool in place of a mean",
    )
    sizes: ClassVar[tuple[int, int]] = (32, 64)

    def last_pool(self) -> nn.Module:
        return nn.AdaptiveMaxPool2d(1)


@ARCHITECTURES.register("vgg19")
@dataclass(frozen=True, kw_only=True)
class Vgg19(_Vgg):
    """VGG-19 with batch norm: 20,040,522 parameters for 10 classes."""

    plan: ClassVar[str] = "E"
    gflop: ClassVar[float] = 0.796
    megabytes: ClassVar[float] = 80.2


@ARCHITECTURES.register("small_vgg")
@dataclass(frozen=True, kw_only=True)
class SmallVgg(Architecture):
    """Three stages of 16, 32 and 64 channels, a convolution and a max-pool each."""

    card = Card(paper="Simonyan and Zisserman 2015, the stages; the network is raygrid's own")
    gflop: ClassVar[float] = 0.0056
    megabytes: ClassVar[float] = 0.0988
    stand_in: ClassVar[str] = "small_vgg"

    def body(self, image_size: int) -> tuple[nn.Module, int]:
        from torchvision.models import vgg

        layers = vgg.make_layers([16, "M", 32, "M", 64, "M"], batch_norm=True)
        return nn.Sequential(layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), 64


@ARCHITECTURES.register("vgg11_narrow")
@dataclass(frozen=True, kw_only=True)
class Vgg11Narrow(Architecture):
    """VGG-11 with batch norm and a 1x1 convolution to 2 channels: 9,227,040 parameters, 10 classes.

    The last map is 1x1 at 32 pixels, all that the code takes; larger ones are averaged here.
    """

    card = Card(
        paper="Feng et al. 2019, Learning to Confuse (its code)",
        code="kingfengji/DeepConfuse@1f49274 (CIFAR/models/vgg.py)",
        notes="the classifier that `dc` is trained against",
    )
    sizes: ClassVar[tuple[int, int]] = (32, 224)  # five halvings
    gflop: ClassVar[float] = 0.306
    megabytes: ClassVar[float] = 36.9
    stand_in: ClassVar[str] = "small_vgg"

    def body(self, image_size: int) -> tuple[nn.Module, int]:
        from torchvision.models import vgg

        layers = vgg.make_layers(vgg.cfgs["A"], batch_norm=True)
        return nn.Sequential(layers, nn.AdaptiveAvgPool2d(1), nn.Conv2d(512, 2, 1), nn.Flatten()), 2
