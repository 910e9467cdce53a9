"""The layers of the network of the fastest known CIFAR-10 trainings."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Whitening(nn.Module):
    """A 2x2 convolution whose filters are fixed: buffer `filters` (24, 3, 2, 2), a learned bias."""

    def __init__(self, filters: Tensor) -> None:
        super().__init__()
        self.register_buffer("filters", torch.empty(filters.shape).copy_(filters))
        self.bias = nn.Parameter(torch.zeros(len(filters)))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.filters, self.bias)  # type: ignore[arg-type]


class ScaledLinear(nn.Linear):
    """A linear layer without bias whose output is divided by the number of its inputs.

    Its weights start with a standard deviation of 1.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        with torch.no_grad():
            self.weight.div_(self.weight.std().clamp_min(1e-12))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / self.in_features


class ShiftedNorm(nn.BatchNorm2d):
    """Batch norm with a learned bias and no learned scale; the running ones move by 0.4 a step.

    The source adds 1e-12 to variances; constant images, whose rounding that blows up, need more.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-5, momentum=0.4, affine=False)
        self.bias = nn.Parameter(torch.zeros(channels))  # which torch adds if it is there
        # CUDA's backward makes a gradient for the bias only beside one for a scale, so there is a
        # scale of ones. No parameter, which would be trained; in no state, as it never changes.
        del self._parameters["weight"]
        self.register_buffer("weight", torch.ones(channels), persistent=False)


class IdentityConv(nn.Conv2d):
    """A 3x3 convolution without bias that hands on its first inputs until it has learned."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1, bias=False)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        with torch.no_grad():
            nn.init.dirac_(self.weight[: self.in_channels])


def halving_block(inputs: int, outputs: int) -> list[nn.Module]:
    """Halves the side."""
    first, second = IdentityConv(inputs, outputs), IdentityConv(outputs, outputs)
    reduced = [first, nn.MaxPool2d(2), ShiftedNorm(outputs), nn.GELU()]
    return [*reduced, second, ShiftedNorm(outputs), nn.GELU()]
