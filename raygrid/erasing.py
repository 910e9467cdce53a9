"""UEraser's augmentation: plasma brightness and contrast, channel shuffle, TrivialAugment."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from raygrid.codec import recode
from raygrid.data import to_uint8
from raygrid.seeds import forked

EXTRA = ("kornia", "ueraser")
SHUFFLE = 0.5  # probability that an image's channels are shuffled


def erase(x: Tensor, rng: torch.Generator, p: float, jpeg: bool = False) -> Tensor:
    """Augment a batch (n, C, H, W) in [0, 1]; differentiable unless `jpeg`.

    p: probability of each of the two plasma steps, for each image. The operation of TrivialAugment
    is drawn for the whole batch, its strength for each image. jpeg: first encode each image with a
    quality of 10 to 99. Steps without a gradient (TrivialAugment's equalize and posterize) have
    that of the identity.
    """
    if jpeg:
        x = random_jpeg(x, rng)
    # kornia takes no generator: it draws from the global ones, which are put back afterwards
    seed = int(torch.randint(2**62, (1,), generator=rng, device=rng.device))
    with forked(seed, x.device), torch.autocast(x.device.type, enabled=False):
        for step in _steps(p):
            x = _Through.apply(step, x) if x.requires_grad else step(x)
    return x.clamp(0, 1)


class _Through(torch.autograd.Function):
    """A step whose gradient is that of the identity where it has none of its own."""

    @staticmethod
    def forward(ctx: Any, step: Any, x: Tensor) -> Tensor:
        with torch.enable_grad():
            ctx.x = x.detach().requires_grad_()
            ctx.out = step(ctx.x)
        return ctx.out.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        (own,) = torch.autograd.grad(ctx.out, ctx.x, gradient)
        return None, torch.where(own.any(), own, gradient)


@lru_cache
def _steps(p: float) -> Sequence[Any]:
    import kornia.augmentation as ka
    from kornia.augmentation.auto import TrivialAugment

    roughness = (0.3, 0.7)
    return (
        ka.RandomPlasmaBrightness(roughness=roughness, intensity=(0.5, 1.0), p=p),
        ka.RandomPlasmaContrast(roughness=roughness, p=p),
        ka.RandomChannelShuffle(p=SHUFFLE),
        TrivialAugment(),
    )


def random_jpeg(x: Tensor, rng: torch.Generator) -> Tensor:
    """Encode each image of a batch with its own quality, uniform in 10 to 99, and decode it."""
    draws = torch.randint(10, 100, (len(x),), generator=rng, device=rng.device).tolist()
    pixels = to_uint8(x.detach()).cpu()
    coded = [recode(image[None], quality) for image, quality in zip(pixels, draws, strict=True)]
    return torch.cat(coded).to(x.device).float().div_(255)
