"""Auto-encoders with a bounded rate, and the perturbation branch of D-VAE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

LATENT = 256
DEEP_FROM = 112  # pixels a side, from which features have stride 8

Table = Literal["spatial", "flat"]


@dataclass(frozen=True)
class Plan:
    """The size of an auto-encoder.

    classes: of the perturbation branch; 0 for none. deep: features of stride 8 and width 512 for
    224-pixel images, else of stride 2 and width 128. spatial: a whole map for each class, else one
    vector. width: channels of a plain bottleneck, 0 for the variational one.
    """

    side: int
    classes: int = 0
    deep: bool = False
    spatial: bool = True
    width: int = 0

    @classmethod
    def disentangling(cls, side: int, classes: int, table: Table, deep: bool = True) -> Plan:
        """That of a D-VAE for images of `side` pixels; deep: as far as they are large enough."""
        large = side >= DEEP_FROM
        return cls(side, classes, deep and large, table == "spatial" and not large)

    @property
    def channels(self) -> int:
        return 512 if self.deep else 128

    @property
    def grid(self) -> int:
        """Side of the feature map."""
        return self.side // (8 if self.deep else 2)


def misfit(name: str, side: int) -> str | None:
    """Why auto-encoders cannot take images of `side` pixels, or None; name: of the method."""
    stride = 8 if side >= DEEP_FROM else 2
    return f"{name} takes sides divisible by {stride}, not {side}" if side % stride else None


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

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        channels = plan.channels
        self.plan = plan
        self.encoder = encoder(plan.deep)
        if plan.width:
            narrow, wide = nn.Conv2d(channels, plan.width, 1), nn.Conv2d(plan.width, channels, 1)
            self.bottleneck = nn.Sequential(narrow, wide)
        else:
            self.mean = nn.Conv2d(channels, LATENT, 1)
            self.log_var = nn.Conv2d(channels, LATENT, 1)
            self.project = nn.Conv2d(LATENT, channels, 1)
        self.decoder = decoder(plan.deep)
        if plan.classes:
            size = plan.grid if plan.spatial else 1
            self.table = nn.Parameter(torch.randn(plan.classes, channels, size, size))
            self.branch = decoder(plan.deep)

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


def encoder(deep: bool) -> nn.Module:
    """Residual blocks as in ResNet-18: 7 convolutions of stride 2 in all, or 15 of stride 8."""
    from torchvision.models.resnet import BasicBlock

    stem = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
    blocks: list[nn.Module] = [BasicBlock(64, 64), BasicBlock(64, 64), _halving(64, 128)]
    if deep:
        blocks += [BasicBlock(128, 128), _halving(128, 256), BasicBlock(256, 256)]
        blocks += [_halving(256, 512)]
    return nn.Sequential(*stem, *blocks)


def _halving(inputs: int, outputs: int) -> nn.Module:
    from torchvision.models.resnet import BasicBlock

    project = nn.Sequential(nn.Conv2d(inputs, outputs, 1, 2, bias=False), nn.BatchNorm2d(outputs))
    return BasicBlock(inputs, outputs, stride=2, downsample=project)


def decoder(deep: bool) -> nn.Module:
    """Transposed convolutions from features back to three unbounded channels."""
    if deep:
        layers = [*_up(512, 256, 4), *_up(256, 128, 3, norm=True), *_up(128, 64, 4)]
        return nn.Sequential(*layers, *_up(64, 32, 3, norm=True), *_up(32, 3, 4))
    layers = [*_up(128, 64, 4), *_up(64, 64, 3, norm=True), *_up(64, 32, 3, norm=True)]
    return nn.Sequential(*layers, *_up(32, 3, 3))


def _up(inputs: int, outputs: int, kernel: int, norm: bool = False) -> list[nn.Module]:
    """A kernel of 4 doubles the side, one of 3 keeps it."""
    layer: list[nn.Module] = [nn.ConvTranspose2d(inputs, outputs, kernel, kernel - 2, 1)]
    return [*layer, nn.InstanceNorm2d(outputs), nn.ReLU(inplace=True)] if norm else layer
