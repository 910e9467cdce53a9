"""The residual block without weights in its shortcut (He et al. 2016, option A)."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn


class PaddedBlock(nn.Module):
    """Two convolutions; the shortcut drops pixels and adds empty channels where sizes differ."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.more = outputs - inputs
        self.layers = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
                norm1=nn.BatchNorm2d(outputs),
                relu=nn.ReLU(),
                conv2=nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
                norm2=nn.BatchNorm2d(outputs),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        short = x[:, :, :: self.stride, :: self.stride]
        if self.more:
            pad = self.more // 2
            short = nn.functional.pad(short, (0, 0, 0, 0, pad, self.more - pad))
        return torch.relu(self.layers(x) + short)
