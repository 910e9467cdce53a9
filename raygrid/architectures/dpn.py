"""Dual path network with the CIFAR stem."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from raygrid.architectures.base import ARCHITECTURES, Architecture, plain_init
from raygrid.core.lazy import nn
from raygrid.core.registry import Card


@ARCHITECTURES.register("dpn92")
@dataclass(frozen=True, kw_only=True)
class Dpn92(Architecture):
    """DPN-92, a residual and a dense path side by side: 34,998,602 parameters for 10 classes."""

    card = Card(
        paper="Chen et al. 2017",
        code="timm dpn92 with the stem of kuangliu/pytorch-cifar",
        notes="timm activates before the convolutions, as the authors do; kuangliu's network, "
        "which APBench carries but trains in none of its tables, after them. Its dense path "
        "enters a stage with one increment instead of two, so that it ends at 2,560 channels "
        "instead of 2,688 (34,236,634 parameters), and its batch norms add 1e-5 to variances, "
        "timm's 1e-3. 224-pixel images keep timm's own stem",
    )
    gflop: ClassVar[float] = 4.17
    megabytes: ClassVar[float] = 140.5
    stand_in: ClassVar[str] = "small_densenet"

    def body(self, image_size: int) -> tuple[nn.Module, int]:
        import timm

        net = timm.create_model("dpn92", num_classes=0)
        if image_size < 112:
            net.features.conv1_1.conv = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
            net.features.conv1_pool = nn.Identity()
        plain_init(net)
        return net, net.num_features
