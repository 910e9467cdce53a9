"""DeepConfuse's VGG-11, whose features are two numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from raygrid.architectures.base import ARCHITECTURES, Architecture
from raygrid.core.lazy import nn
from raygrid.core.registry import Card


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
