"""ResNet-18 with activations before the convolutions, with the CIFAR stem."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from raygrid.architectures.base import ARCHITECTURES, Architecture, plain_init
from raygrid.core.lazy import nn
from raygrid.core.registry import Card


@ARCHITECTURES.register("preact_resnet18")
@dataclass(frozen=True, kw_only=True)
class PreActResNet18(Architecture):
    """Pre-activation ResNet-18: 11,171,146 parameters for 10 classes."""

    card = Card(
        paper="He et al. 2016 (Identity Mappings)",
        code="timm resnetv2_18 with the stem of kuangliu/pytorch-cifar",
        notes="the last normalization and activation of the paper and of timm are left out, as in "
        "kuangliu's network, which APBench carries; 224-pixel images keep timm's own stem",
    )
    gflop: ClassVar[float] = 1.11
    megabytes: ClassVar[float] = 44.7
    stand_in: ClassVar[str] = "small_senet"

    def body(self, image_size: int) -> tuple[nn.Module, int]:
        import timm

        net = timm.create_model("resnetv2_18", num_classes=0)
        if image_size < 112:
            net.stem = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False))
        net.norm = nn.Identity()
        plain_init(net)
        return net, net.num_features
