"""PNASNet with a first stride for small images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from raygrid.architectures.base import ARCHITECTURES, Architecture, plain_init
from raygrid.core.lazy import nn
from raygrid.core.registry import Card


@ARCHITECTURES.register("pnasnet5")
@dataclass(frozen=True, kw_only=True)
class PnasNet5(Architecture):
    """PNASNet-5 (large): 81,779,878 parameters for 10 classes.

    Twelve searched cells follow two in the stem.
    """

    card = Card(
        paper="Liu et al. 2018 (Progressive Neural Architecture Search)",
        code="timm pnasnet5large, first convolution with stride 1 and padding",
        notes="the network of the paper; the PNASNet-A and -B of kuangliu/pytorch-cifar, which "
        "APBench carries but trains in none of its tables, are sketches of it: 20 cells of one "
        "kind, at 44 to 176 or 32 to 128 channels, that take one input instead of the last two "
        "and have depthwise convolutions alone where it has separable ones (130,646 and 451,626 "
        "parameters). 224-pixel images keep timm's own first convolution",
    )
    sizes: ClassVar[tuple[int, int]] = (32, 224)
    gflop: ClassVar[float] = 1.77
    megabytes: ClassVar[float] = 328
    stand_in: ClassVar[str] = "small_mobilenet"

    def body(self, image_size: int) -> tuple[nn.Module, int]:
        import timm

        net = timm.create_model("pnasnet5large", num_classes=0)
        if image_size < 112:
            net.conv_0.conv = nn.Conv2d(3, 96, 3, 1, 1, bias=False)
        plain_init(net)
        return net, net.num_features
