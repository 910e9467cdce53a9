"""DenseNet with the CIFAR stem: 3x3 convolution, no max-pool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from raygrid.architectures.base import ARCHITECTURES, Architecture, plain_init
from raygrid.core.lazy import nn
from raygrid.core.registry import Card


@ARCHITECTURES.register("densenet121")
@dataclass(frozen=True, kw_only=True)
class DenseNet121(Architecture):
    """DenseNet-121: 6,956,298 parameters for 10 classes."""

    card = Card(
        paper="Huang et al. 2017",
        code="torchvision.models.densenet with the stem of kuangliu/pytorch-cifar",
        notes="224-pixel images keep torchvision's own stem",
    )
    gflop: ClassVar[float] = 1.78
    megabytes: ClassVar[float] = 28.2
    stand_in: ClassVar[str] = "small_densenet"

    def body(self, image_size: int) -> tuple[nn.Module, int]:
        from torchvision.models import densenet121

        net = densenet121(weights=None)
        if image_size < 112:
            _shorten(net.features, nn.Conv2d(3, 64, 3, 1, 1, bias=False))
        width = net.classifier.in_features
        net.classifier = nn.Identity()
        plain_init(net)
        return net, width


@ARCHITECTURES.register("small_densenet")
@dataclass(frozen=True, kw_only=True)
class SmallDenseNet(Architecture):
    """Three dense blocks of two layers that grow by 12 channels, after a stem of stride 2."""

    card = Card(paper="Huang et al. 2017, the blocks; the network is raygrid's own")
    gflop: ClassVar[float] = 0.0055
    megabytes: ClassVar[float] = 0.101
    stand_in: ClassVar[str] = "small_densenet"

    def body(self, image_size: int) -> tuple[nn.Module, int]:
        from torchvision.models import DenseNet

        net = DenseNet(growth_rate=12, block_config=(2, 2, 2), num_init_features=24, bn_size=2)
        _shorten(net.features, nn.Conv2d(3, 24, 3, 2, 1, bias=False))
        width = net.classifier.in_features
        net.classifier = nn.Identity()
        plain_init(net)
        return net, width


def _shorten(features: nn.Module, stem: nn.Conv2d) -> None:
    """This one convolution in place of the stem for 224 pixels."""
    features.conv0 = stem
    for name in ("norm0", "relu0", "pool0"):
        setattr(features, name, nn.Identity())
