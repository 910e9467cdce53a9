"""Noise predictors: U-Nets of diffusers, fitted to a training set or loaded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from raygrid.augment import CropFlip
from raygrid.data import Images
from raygrid.defenses.base import Workshop
from raygrid.defenses.diffusion import KEPT, Noise
from raygrid.errors import DataError
from raygrid.recipes import Recipe
from raygrid.seeds import forked
from raygrid.training import Batch, Step, Trainer, autocast

EXTRA = ("diffusers", "avatar")
# channels of the blocks, residual layers of each: 1.1, 9.0 and 35.7 million parameters
SIZES = {
    "xs": ((32, 64, 64), 1),
    "s": ((64, 128, 128, 128), 2),
    "m": ((128, 256, 256, 256), 2),
}
_SCHEDULE = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}


@dataclass(frozen=True)
class DenoiserPlan:
    """How a noise predictor is fitted.

    size: a key of `SIZES`. updates: of its weights. horizon: largest number of steps of noise that
    it learns to see. flip: whether images may be mirrored.
    """

    size: str
    updates: int
    horizon: int
    flip: bool

    def recipe(self, images: int) -> Recipe:
        """Whole epochs that come nearest to `updates`, with at most 5,000 to warm up."""
        each = max(1, images // 128)
        epochs = max(1, round(self.updates / each))
        return Recipe(
            epochs=epochs,
            lr=2e-4,
            optimizer="adam",
            weight_decay=0.0,
            schedule="constant",
            warmup_epochs=min(5000 // each, epochs // 10),
            grad_clip=1.0,
            drop_last=True,
        )


def unet(size: str, side: int) -> nn.Module:
    """A DDPM's U-Net with attention where the map has 16 pixels a side."""
    from diffusers import UNet2DModel

    channels, layers = SIZES[size]
    down, up = ["DownBlock2D"] * len(channels), ["UpBlock2D"] * len(channels)
    for level in range(len(channels)):
        if side >> level == 16:
            down[level], up[-1 - level] = "AttnDownBlock2D", "AttnUpBlock2D"
    return UNet2DModel(
        sample_size=side,
        layers_per_block=layers,
        block_out_channels=channels,
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        dropout=0.1,
    )


def fitted(plan: DenoiserPlan, images: Images, workshop: Workshop) -> Noise:
    """A predictor fitted to the images: mean squared error of the noise, averaged weights."""
    stream, device = workshop.stream.child("denoiser"), workshop.device
    with forked(stream.seed("init")):
        network = unet(plan.size, images.shape[-1]).to(device)
    average = AveragedModel(network, multi_avg_fn=_averaging(plan.updates))
    kept = KEPT.to(device, torch.float32)
    recipe = plan.recipe(len(images))
    flip = CropFlip(0, plan.flip)

    def step(batch: Batch) -> Step:
        average.update_parameters(network)  # the weights that the update before left
        x = 2 * flip(batch.x, batch.rng) - 1
        n = len(x)
        i = torch.randint(plan.horizon, (n,), generator=batch.rng, device=batch.rng.device)
        noise = torch.randn(x.shape, generator=batch.rng, device=batch.rng.device)
        share = kept[i].view(-1, 1, 1, 1)
        with autocast(recipe.precision, device):
            found = network(share.sqrt() * x + (1 - share).sqrt() * noise, i).sample
        loss = (found.float() - noise).square().mean()
        return Step(loss, torch.zeros((), device=device), n)

    trainer = Trainer(network, step, images.to(device), recipe, stream)
    for epoch in range(recipe.epochs):
        trainer.epoch(epoch)
    average.update_parameters(network)
    return _predictor(average)


def _averaging(updates: int) -> Any:
    """Exponential averages of the weights; the early ones are soon forgotten."""
    highest = 0.9999 if updates >= 50_000 else 0.999

    @torch.no_grad()
    def average(means: Sequence[Tensor], now: Sequence[Tensor], count: Tensor | int) -> None:
        decay = min(highest, (1 + int(count)) / (10 + int(count)))
        for mean, value in zip(means, now, strict=True):
            mean.lerp_(value, 1 - decay)

    return average


def loaded(checkpoint: str, side: int, device: torch.device) -> Noise:
    """The predictor of a diffusers folder or hub id; raises DataError if it does not fit."""
    from diffusers import UNet2DModel

    schedule = Path(checkpoint) / "scheduler_config.json"
    if schedule.exists():
        found = json.loads(schedule.read_text())
        if any(found.get(key, value) != value for key, value in _SCHEDULE.items()):
            raise DataError(f"{schedule} is not the linear schedule from 1e-4 to 0.02")
    try:
        network = UNet2DModel.from_pretrained(checkpoint, low_cpu_mem_usage=False)
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"checkpoint {checkpoint} cannot be loaded: {reason}") from error
    made_for = network.config
    if made_for.sample_size != side:
        raise DataError(f"{checkpoint} is for {made_for.sample_size} pixels, not {side}")
    if (made_for.in_channels, made_for.out_channels) != (3, 3):
        shape = f"{made_for.in_channels} channels to {made_for.out_channels}"
        raise DataError(f"{checkpoint} maps {shape}, not 3 to 3")
    return _predictor(network.to(device))


def _predictor(network: nn.Module) -> Noise:
    network.eval().requires_grad_(False)

    @torch.no_grad()
    def noise(x: Tensor, i: int) -> Tensor:
        steps = torch.full((len(x),), i, device=x.device)
        out: Tensor = network(x, steps).sample
        return out.float()

    return noise
