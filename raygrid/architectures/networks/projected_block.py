"""The block that halves the side of a small residual network's maps."""

from __future__ import annotations

from torch import nn
from torchvision.models.resnet import BasicBlock


def projected_block(inputs: int, outputs: int) -> nn.Module:
    """A basic block of stride 2 with a projection on its shortcut."""
    project = nn.Sequential(nn.Conv2d(inputs, outputs, 1, 2, bias=False), nn.BatchNorm2d(outputs))
    return BasicBlock(inputs, outputs, stride=2, downsample=project)
