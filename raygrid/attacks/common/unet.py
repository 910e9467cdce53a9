"""A U-Net from images to images."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn


class UNet(nn.Module):
    """Images (n, 3, H, W) -> values in [-1, 1] of the same shape; H and W divide by 2^(levels-1).

    Levels of two 3x3 convolutions with BN and ReLU, width doubling from level to level; average
    pooling down, bilinear enlargement and concatenation up; at the end 1x1 convolution, BN, tanh.
    """

    def __init__(self, width: int, levels: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(levels)]
        self.down = nn.ModuleList(_block(a, b) for a, b in itertools.pairwise([3, *widths]))
        pairs = list(itertools.pairwise(widths))[::-1]
        self.up = nn.ModuleList(_block(small + large, small) for small, large in pairs)
        self.last = nn.Sequential(nn.Conv2d(width, 3, 1), nn.BatchNorm2d(3), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        kept: list[Tensor] = []
        for block in self.down:
            x = block(nn.functional.avg_pool2d(kept[-1], 2) if kept else x)
            kept.append(x)
        for block, skipped in zip(self.up, kept[-2::-1], strict=True):
            size = skipped.shape[-2:]
            x = nn.functional.interpolate(x, size, mode="bilinear", align_corners=True)
            x = block(torch.cat([skipped, x], 1))
        out: Tensor = self.last(x)
        return out


def _block(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a in (inputs, outputs):
        layers += [nn.Conv2d(a, outputs, 3, 1, 1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
