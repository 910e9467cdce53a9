"""RegNet with strides for small images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from raygrid.architectures.base import ARCHITECTURES, Architecture, plain_init
from raygrid.core.lazy import nn
from raygrid.core.registry import Card


@ARCHITECTURES.register("regnetx_200mf")
@dataclass(frozen=True, kw_only=True)
class RegNetX200Mf(Architecture):
    """RegNetX-200MF: 2,319,482 parameters for 10 classes."""

    card = Card(
        paper="Radosavovic et al. 2020",
        code="timm regnetx_002, stem and first two stages with stride 1, as in "
        "kuangliu/pytorch-cifar",
        notes="kuangliu's network, which APBench carries but trains in none of its tables, has a "
        "stem of 64 channels instead of 32 (2,321,946 parameters) and is the same behind it; "
        "224-pixel images keep timm's own strides",
    )
    gflop: ClassVar[float] = 0.442
    megabytes: ClassVar[float] = 9.36
    stand_in: ClassVar[str] = "small_resnet"

    def body(self, image_size: int) -> tuple[nn.Module, int]:
        import timm

        net = timm.create_model("regnetx_002", num_classes=0)
        if image_size < 112:
            net.stem.conv.stride = (1, 1)
            for block in (net.s1.b1, net.s2.b1):
                block.conv2.conv.stride = block.downsample.conv.stride = (1, 1)
        plain_init(net)
        return net, net.num_features
