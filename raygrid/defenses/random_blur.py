"""Gaussian blur of every view with a random width."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from raygrid.core import draws
from raygrid.core.lazy import nn, torch
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card, require
from raygrid.defenses.base import DEFENSES, Defense
from raygrid.defenses.common.filters import require_odd

if TYPE_CHECKING:
    from torch import Tensor


@DEFENSES.register("random_blur")
@dataclass(frozen=True, kw_only=True)
class RandomBlur(Defense):
    """Each image is blurred with its own sigma ~ U(low, high), drawn again every epoch.

    The kernel is separable with weights proportional to exp(-d^2 / (2 sigma^2)); borders are
    reflected.
    """

    card = Card(
        paper="Liu et al. (Transferable Availability Poisoning), table 8",
        published={
            "cifar10/tp/random_blur/resnet18/simclr/tp/0": 0.8003,
            "cifar10/tap/random_blur/resnet18/simclr/tp/0": 0.7808,
            "cifar10/clean/random_blur/resnet18/simclr/tp/0": 0.9125,
        },
        cost="one small convolution a batch",
        notes="the paper gives no setting; a fixed sigma of 0.1 would change nothing, so this is "
        "the range of contrastive augmentations. Its learner may be SimCLR or BYOL",
    )
    idle: ClassVar[tuple[Mapping[str, Scalar], ...]] = ({"low": 0.05, "high": 0.05},)

    kernel: int = 3  # side, pixels, odd
    low: float = 0.1  # smallest sigma, pixels
    high: float = 2.0  # largest sigma, pixels

    def __post_init__(self) -> None:
        require_odd(self.kernel, least=3)
        ordered = 0 < self.low <= self.high
        require(ordered, f"low is {self.low}, allowed are positive numbers up to {self.high}")

    def augment(self, x: Tensor, y: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        u = draws.rand((len(x),), rng, x.device)
        return blur_each(x, self.low + (self.high - self.low) * u, self.kernel), y


def blur_each(x: Tensor, sigma: Tensor, kernel: int) -> Tensor:
    """Blur each image of (n, C, H, W) with its own sigma (n,); differentiable in x."""
    n, channels, height, width = x.shape
    half = kernel // 2
    steps = torch.arange(-half, half + 1, device=x.device, dtype=x.dtype)
    weights = torch.exp(-(steps**2) / (2 * sigma[:, None] ** 2))
    weights = (weights / weights.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    padded = nn.functional.pad(x, (half,) * 4, mode="reflect")
    flat = padded.reshape(1, n * channels, height + 2 * half, width + 2 * half)
    rows = nn.functional.conv2d(flat, weights[:, None, None, :], groups=n * channels)
    out = nn.functional.conv2d(rows, weights[:, None, :, None], groups=n * channels)
    return out.view(n, channels, height, width)
