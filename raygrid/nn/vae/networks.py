"""Auto-encoders with a bounded rate, and the perturbation branch of D-VAE."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from raygrid.architectures.networks.projected_block import projected_block
from raygrid.core import draws
from raygrid.nn.vae.autoencoders import Parts, VaeSize


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
        noise = draws.randn(mean.shape, rng, mean.device)
        return self.project(mean + (log_var / 2).exp() * noise), divergence(mean, log_var)


def divergence(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mean, var) || N(0, 1)) summed over channels, averaged over images and positions."""
    each = (mean.square() + log_var.exp() - 1 - log_var) / 2
    return each.sum(1).mean()


def encoder(deep: bool, shrink: int = 1) -> nn.Module:
    """Residual blocks as in ResNet-18: 7 convolutions of stride 2 in all, or 15 of stride 8."""
    from torchvision.models.resnet import BasicBlock

    a, b, c, d = (channels // shrink for channels in (64, 128, 256, 512))
    stem = [nn.Conv2d(3, a, 3, 1, 1, bias=False), nn.BatchNorm2d(a), nn.ReLU(inplace=True)]
    blocks: list[nn.Module] = [BasicBlock(a, a), BasicBlock(a, a), projected_block(a, b)]
    if deep:
        blocks += [BasicBlock(b, b), projected_block(b, c), BasicBlock(c, c), projected_block(c, d)]
    return nn.Sequential(*stem, *blocks)


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
