"""DenseNet with the CIFAR stem: 3x3 convolution, no max-pool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torchvision.models as tv
from torch import nn

from raygrid.architectures.base import ARCHITECTURES, Architecture, plain_init
from raygrid.registry import Card


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

    def body(self, image_size: int) -> tuple[nn.Module, int]:
        net = tv.densenet121(weights=None)
        if image_size < 112:
            net.features.conv0 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
            for name in ("norm0", "relu0", "pool0"):
                setattr(net.features, name, nn.Identity())
        width = net.classifier.in_features
        net.classifier = nn.Identity()
        plain_init(net)
        return net, width
