"""ShuffleNetV2 with strides for small images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from raygrid.architectures.base import ARCHITECTURES, Architecture, plain_init
from raygrid.core.lazy import nn
from raygrid.core.registry import Card


@ARCHITECTURES.register("shufflenetv2")
@dataclass(frozen=True, kw_only=True)
class ShuffleNetV2(Architecture):
    """ShuffleNetV2 of width 1: 1,263,854 parameters for 10 classes."""

    card = Card(
        paper="Ma et al. 2018",
        code="torchvision.models.shufflenet_v2_x1_0, first stride 1 and no max-pool, as in "
        "kuangliu/pytorch-cifar",
        notes="stands for the first ShuffleNet too, which no kept library has and whose file in "
        "APBench stops with a TypeError. 224-pixel images keep torchvision's own stem",
    )
    gflop: ClassVar[float] = 0.09
    megabytes: ClassVar[float] = 5.12
    stand_in: ClassVar[str] = "small_mobilenet"

    def body(self, image_size: int) -> tuple[nn.Module, int]:
        from torchvision.models import shufflenet_v2_x1_0

        net = shufflenet_v2_x1_0(weights=None)
        if image_size < 112:
            net.conv1[0].stride = (1, 1)
            net.maxpool = nn.Identity()
        width = net.fc.in_features
        net.fc = nn.Identity()
        plain_init(net)
        return net, width
