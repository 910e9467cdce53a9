"""SENet-18: pre-activation residual blocks with squeeze and excitation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch.nn.functional import relu

from raygrid.architectures.base import ARCHITECTURES, Architecture
from raygrid.core.lazy import nn
from raygrid.core.registry import Card

if TYPE_CHECKING:
    from torch import Tensor


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
    stand_in: ClassVar[str] = "small_senet"

    def body(self, image_size: int) -> tuple[nn.Module, int]:
        blocks, inputs = list[nn.Module](), 64
        for outputs, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            blocks += [_Block(inputs, outputs, stride), _Block(outputs, outputs, 1)]
            inputs = outputs
        return _stacked(64, 1, blocks), 512


@ARCHITECTURES.register("small_senet")
@dataclass(frozen=True, kw_only=True)
class SmallSeNet(Architecture):
    """A 3x3 convolution of stride 2, one block each with 16, 32 and 64 channels."""

    card = Card(paper="Hu et al. 2018, the gate; the network is raygrid's own")
    gflop: ClassVar[float] = 0.0062
    stand_in: ClassVar[str] = "small_senet"

    def body(self, image_size: int) -> tuple[nn.Module, int]:
        blocks = [_Block(16, 16, 1), _Block(16, 32, 2), _Block(32, 64, 2)]
        return _stacked(16, 2, blocks), 64


def _stacked(inputs: int, stride: int, blocks: Sequence[nn.Module]) -> nn.Module:
    """A stem of `inputs` channels, the blocks, the mean over pixels."""
    conv = nn.Conv2d(3, inputs, 3, stride, 1, bias=False)
    stem = [conv, nn.BatchNorm2d(inputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class _Block(nn.Module):
    """Two activated 3x3 convolutions times a gate for each channel, plus the shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(outputs, outputs // 16, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs // 16, outputs, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        active = relu(self.norm1(x))
        out = self.conv2(relu(self.norm2(self.conv1(active))))
        kept = self.shortcut(active) if self.shortcut is not None else x
        return kept + out * self.gate(out)
