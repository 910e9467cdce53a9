"""MobileNetV2 as kuangliu/pytorch-cifar builds it: ReLU, and projections on shortcuts."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

# Expansion, channels, blocks and first stride of each stage, for small images.
_STAGES = (
    *((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2)),
    *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
)
LAST_WIDTH = 1280


def mobilenetv2_body(strides: tuple[int, int]) -> nn.Module:
    """The network up to its `LAST_WIDTH` features; strides of the stem and of the second stage."""
    layers: list[nn.Module] = [*_convolved(3, 32, 3, strides[0]), nn.ReLU(inplace=True)]
    inputs = 32
    for number, (expansion, outputs, blocks, first) in enumerate(_STAGES):
        for block in range(blocks):
            stride = strides[1] if number == 1 else first
            layers.append(InvertedBlock(inputs, outputs, expansion, 1 if block else stride))
            inputs = outputs
    layers += [*_convolved(inputs, LAST_WIDTH, 1), nn.ReLU(inplace=True)]
    named = {"features": nn.Sequential(*layers), "pool": nn.AdaptiveAvgPool2d(1)}
    return nn.Sequential(OrderedDict({**named, "flat": nn.Flatten()}))


class InvertedBlock(nn.Module):
    """Channels are multiplied, filtered one by one and projected, plus the shortcut at stride 1.

    The shortcut is a projection where the numbers of channels differ.
    """

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        planes = expansion * inputs
        self.layers = nn.Sequential(
            *(*_convolved(inputs, planes, 1), nn.ReLU(inplace=True)),
            *(*_convolved(planes, planes, 3, stride, planes), nn.ReLU(inplace=True)),
            *_convolved(planes, outputs, 1),
        )
        self.shortcut: nn.Module | None = None
        if stride == 1:
            same = inputs == outputs
            self.shortcut = nn.Sequential(*(() if same else _convolved(inputs, outputs, 1)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out if self.shortcut is None else out + self.shortcut(x)


def _convolved(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> tuple[nn.Module, nn.Module]:
    """A convolution without bias that keeps the size at stride 1, and its batch norm."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return conv, nn.BatchNorm2d(outputs)
