"""Pre-activation residual blocks with squeeze and excitation."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import relu


def senet_body(inputs: int, stride: int, blocks: Sequence[nn.Module]) -> nn.Module:
    """A stem of `inputs` channels, the blocks, the mean over pixels."""
    conv = nn.Conv2d(3, inputs, 3, stride, 1, bias=False)
    stem = [conv, nn.BatchNorm2d(inputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class GatedBlock(nn.Module):
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
