"""EfficientNet with a first stride for small images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from raygrid.architectures.base import ARCHITECTURES, Architecture, plain_init
from raygrid.core.lazy import nn
from raygrid.core.registry import Card


@ARCHITECTURES.register("efficientnet_b0")
@dataclass(frozen=True, kw_only=True)
class EfficientNetB0(Architecture):
    """EfficientNet-B0: 4,020,358 parameters for 10 classes.

    In training a branch of an image is left out with up to 0.2, a feature with 0.2.
    """

    card = Card(
        paper="Tan & Le 2019",
        code="torchvision.models.efficientnet_b0, first stride 1, as in kuangliu/pytorch-cifar",
        notes="kuangliu's network, which APBench carries but trains in none of its tables, ends "
        "at 320 channels, without the last 1x1 convolution to 1,280 (3,598,598 parameters in "
        "use), and leaves out no branch: the number of a block, by which the chance grows, stays "
        "0 there. 224-pixel images keep torchvision's own first stride",
    )
    gflop: ClassVar[float] = 0.064
    megabytes: ClassVar[float] = 16.3
    stand_in: ClassVar[str] = "small_mobilenet"

    def body(self, image_size: int) -> tuple[nn.Module, int]:
        from torchvision.models import efficientnet_b0

        net = efficientnet_b0(weights=None)
        if image_size < 112:
            net.features[0][0].stride = (1, 1)
        width = net.classifier[1].in_features
        net.classifier = net.classifier[0]  # the dropout stays, the head is the network's
        plain_init(net)
        return net, width
