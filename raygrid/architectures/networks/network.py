"""What every network is: normalization, a body, a head."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """First layer of every network, so that budgets stay in pixel units. (N, C, H, W) in [0, 1]."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std  # type: ignore[operator]


class Network(nn.Module):
    """Normalization, a body that ends in features (N, width), a linear head (N, classes)."""

    def __init__(self, body: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.normalize: nn.Module = nn.Identity()
        self.body = body
        self.width = width
        self.head = nn.Linear(width, classes)

    def normalize_by(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        """Normalize images by mean and standard deviation of each channel before the body."""
        self.normalize = Normalize(mean, std)

    def features(self, x: Tensor) -> Tensor:
        """Penultimate features (N, width) of images (N, C, H, W) in [0, 1]."""
        out: Tensor = self.body(self.normalize(x))
        return out

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.features(x))
        return out
