"""SENet-18: pre-activation residual blocks with squeeze and excitation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from raygrid.architectures.base import ARCHITECTURES, Architecture
from raygrid.core.registry import Card

if TYPE_CHECKING:
    from torch import nn


@ARCHITECTURES.register("senet18")
@dataclass(frozen=True, kw_only=True)
class SeNet18(Architecture):
    """SENet-18: 11,260,354 parameters for 10 classes."""

    card = Card(
        paper="Hu et al. 2018",
        code="the network of kuangliu/pytorch-cifar",
        notes="timm's seresnet18 is another one: activation after the blocks, gates of 8 channels "
        "and more",
    )
    gflop: ClassVar[float] = 1.11
    megabytes: ClassVar[float] = 45.1
    stand_in: ClassVar[str] = "small_senet"

    def body(self, image_size: int) -> tuple[nn.Module, int]:
        from raygrid.architectures.networks.senet import GatedBlock, senet_body

        blocks: list[nn.Module] = []
        inputs = 64
        for outputs, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            blocks += [GatedBlock(inputs, outputs, stride), GatedBlock(outputs, outputs, 1)]
            inputs = outputs
        return senet_body(64, 1, blocks), 512


@ARCHITECTURES.register("small_senet")
@dataclass(frozen=True, kw_only=True)
class SmallSeNet(Architecture):
    """A 3x3 convolution of stride 2, one block each with 16, 32 and 64 channels."""

    card = Card(paper="Hu et al. 2018, the gate; the network is raygrid's own")
    gflop: ClassVar[float] = 0.0062
    megabytes: ClassVar[float] = 0.316
    stand_in: ClassVar[str] = "small_senet"

    def body(self, image_size: int) -> tuple[nn.Module, int]:
        from raygrid.architectures.networks.senet import GatedBlock, senet_body

        blocks = [GatedBlock(16, 16, 1), GatedBlock(16, 32, 2), GatedBlock(32, 64, 2)]
        return senet_body(16, 2, blocks), 64
