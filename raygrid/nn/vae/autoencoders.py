"""Auto-encoders with a bounded rate, and the perturbation branch of D-VAE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

LATENT = 256
DEEP_FROM = 112  # pixels a side, from which features have stride 8
SHRINKS = (1, 2, 4, 8, 16)

Table = Literal["spatial", "flat"]


@dataclass(frozen=True)
class VaeSize:
    """The size of an auto-encoder.

    classes: of the perturbation branch; 0 for none. deep: features of stride 8 and width 512 for
    224-pixel images, else of stride 2 and width 128. spatial: a whole map for each class, else one
    vector. width: channels of a plain bottleneck, 0 for the variational one. shrink: all other
    channels are divided by it, for few images on a small machine; the papers' networks have 1.
    """

    side: int
    classes: int = 0
    deep: bool = False
    spatial: bool = True
    width: int = 0
    shrink: int = 1

    @classmethod
    def disentangling(
        cls, side: int, classes: int, table: Table, deep: bool = True, shrink: int = 1
    ) -> VaeSize:
        """That of a D-VAE for images of `side` pixels; deep: as far as they are large enough."""
        large = side >= DEEP_FROM
        spatial = table == "spatial" and not large
        return cls(side, classes, deep and large, spatial, shrink=shrink)

    @classmethod
    def reconstructing(cls, side: int, width: int = 0, shrink: int = 1) -> VaeSize:
        """That of an auto-encoder without classes for images of `side` pixels."""
        return cls(side, deep=side >= DEEP_FROM, width=width, shrink=shrink)

    @property
    def channels(self) -> int:
        return (512 if self.deep else 128) // self.shrink

    @property
    def latent(self) -> int:
        return LATENT // self.shrink

    @property
    def grid(self) -> int:
        """Side of the feature map."""
        return self.side // (8 if self.deep else 2)


def misfit(name: str, side: int) -> str | None:
    """Why auto-encoders cannot take images of `side` pixels, or None; name: of the method."""
    stride = 8 if side >= DEEP_FROM else 2
    return f"{name} takes sides divisible by {stride}, not {side}" if side % stride else None


def relative_cost(shrink: int) -> float:
    """Time of a network whose channels are divided by `shrink` against that of the whole one.

    Measured on one CPU core, 32 images of 32 pixels an update: 0.30, 0.12, 0.075 for 2, 4, 8.
    """
    return max(0.05, shrink**-1.5)


@dataclass
class Parts:
    """What an auto-encoder makes of images x (n, 3, S, S) in [0, 1].

    image: reconstruction in [0, 1]. perturbation: unbounded, None without the branch.
    rate: Kullback-Leibler divergence in nats for each position of the feature map, a scalar.
    """

    image: Tensor
    perturbation: Tensor | None
    rate: Tensor


class AutoEncoder(nn.Module):
    """Encoder, sampled latent, image decoder; with classes a perturbation decoder too."""

    def __init__(self, plan: VaeSize) -> None:
        super().__init__()
        channels = plan.channels
        self.plan = plan
        self.encoder = encoder(plan.deep, plan.shrink)
        if plan.width:
            narrow, wide = nn.Conv2d(channels, plan.width, 1), nn.Conv2d(plan.width, channels, 1)
            self.bottleneck = nn.Sequential(narrow, wide)
        else:
            self.mean = nn.Conv2d(channels, plan.latent, 1)
            self.log_var = nn.Conv2d(channels, plan.latent, 1)
            self.project = nn.Conv2d(plan.latent, channels, 1)
        self.decoder = decoder(plan.deep, plan.shrink)
        if plan.classes:
            size = plan.grid if plan.spatial else 1
            self.table = nn.Parameter(torch.randn(plan.classes, channels, size, size))
            self.branch = decoder(plan.deep, plan.shrink)

    def forward(self, x: Tensor, y: Tensor, rng: torch.Generator) -> Parts:
        """y: int64 (n,), used by the perturbation branch alone; rng draws the latent sample."""
        latent, rate = self._code(self.encoder(x), rng)
        perturbation = None
        if self.plan.classes:
            perturbation = self.branch(latent + self.table[y])
        return Parts(self.decoder(latent).sigmoid(), perturbation, rate)

    def _code(self, features: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        if self.plan.width:
            return self.bottleneck(features), torch.zeros((), device=features.device)
        mean, log_var = self.mean(features), self.log_var(features)
        noise = torch.randn(mean.shape, generator=rng, device=rng.device)
        return self.project(mean + (log_var / 2).exp() * noise), divergence(mean, log_var)


def divergence(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mean, var) || N(0, 1)) summed over channels, averaged over images and positions."""
    each = (mean.square() + log_var.exp() - 1 - log_var) / 2
    return each.sum(1).mean()


def rate_loss(rate: Tensor, limit: float) -> Tensor:
    """The weighted rate above its limit; below it a constant, so that nothing pulls."""
    weight = 0.01 if limit > 0.99 else 0.5
    return weight * rate.clamp_min(limit)


def encoder(deep: bool, shrink: int = 1) -> nn.Module:
    """Residual blocks as in ResNet-18: 7 convolutions of stride 2 in all, or 15 of stride 8."""
    from torchvision.models.resnet import BasicBlock

    a, b, c, d = (channels // shrink for channels in (64, 128, 256, 512))
    stem = [nn.Conv2d(3, a, 3, 1, 1, bias=False), nn.BatchNorm2d(a), nn.ReLU(inplace=True)]
    blocks: list[nn.Module] = [BasicBlock(a, a), BasicBlock(a, a), _halving(a, b)]
    if deep:
        blocks += [BasicBlock(b, b), _halving(b, c), BasicBlock(c, c), _halving(c, d)]
    return nn.Sequential(*stem, *blocks)


def _halving(inputs: int, outputs: int) -> nn.Module:
    from torchvision.models.resnet import BasicBlock

    project = nn.Sequential(nn.Conv2d(inputs, outputs, 1, 2, bias=False), nn.BatchNorm2d(outputs))
    return BasicBlock(inputs, outputs, stride=2, downsample=project)


def decoder(deep: bool, shrink: int = 1) -> nn.Module:
    """Transposed convolutions from features back to three unbounded channels."""
    a, b, c, d, e = (channels // shrink for channels in (32, 64, 128, 256, 512))
    if deep:
        layers = [*_up(e, d, 4), *_up(d, c, 3, norm=True), *_up(c, b, 4)]
        return nn.Sequential(*layers, *_up(b, a, 3, norm=True), *_up(a, 3, 4))
    layers = [*_up(c, b, 4), *_up(b, b, 3, norm=True), *_up(b, a, 3, norm=True)]
    return nn.Sequential(*layers, *_up(a, 3, 3))


def _up(inputs: int, outputs: int, kernel: int, norm: bool = False) -> list[nn.Module]:
    """A kernel of 4 doubles the side, one of 3 keeps it."""
    layer: list[nn.Module] = [nn.ConvTranspose2d(inputs, outputs, kernel, kernel - 2, 1)]
    return [*layer, nn.InstanceNorm2d(outputs), nn.ReLU(inplace=True)] if norm else layer
