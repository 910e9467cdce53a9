"""ResNeXt-29 for small images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from raygrid.architectures.base import ARCHITECTURES, Architecture, plain_init
from raygrid.core.lazy import nn
from raygrid.core.registry import Card


@ARCHITECTURES.register("resnext29")
@dataclass(frozen=True, kw_only=True)
class ResNext29(Architecture):
    """ResNeXt-29 (32x4d), three stages of three blocks: 4,774,218 parameters for 10 classes."""

    card = Card(
        paper="Xie et al. 2017",
        code="torchvision's blocks, sizes and 1x1 stem as in kuangliu/pytorch-cifar",
        notes="32 groups of 4 channels; the paper's own networks for CIFAR have 8 or 16 groups of "
        "64. 224-pixel images keep torchvision's stem",
    )
    gflop: ClassVar[float] = 1.545
    megabytes: ClassVar[float] = 19.2
    stand_in: ClassVar[str] = "small_resnet"

    def body(self, image_size: int) -> tuple[nn.Module, int]:
        from torchvision.models.resnet import Bottleneck, ResNet

        net = ResNet(Bottleneck, [3, 3, 3, 1], groups=32, width_per_group=4)
        if image_size < 112:
            net.conv1 = nn.Conv2d(3, 64, 1, bias=False)
            net.maxpool = nn.Identity()
        net.layer4 = net.fc = nn.Identity()
        plain_init(net)
        return net, 1024
