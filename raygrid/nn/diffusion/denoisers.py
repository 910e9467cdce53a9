"""Noise predictors that raygrid fits itself: U-Nets of diffusers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from raygrid.core import draws
from raygrid.core.images import Images
from raygrid.core.lazy import nn, no_grad, torch
from raygrid.core.seeds import Stream, forked
from raygrid.nn.augment import CropFlip, flips
from raygrid.nn.context import FitContext
from raygrid.nn.diffusion.process import NoiseSchedule, Predictor, in_parts, kept_shares, label_of
from raygrid.nn.networks import freeze
from raygrid.nn.recipes import Recipe
from raygrid.nn.steps import Batch, Step, autocast
from raygrid.nn.trainer import Trainer
from raygrid.storage.checkpoints import NoProgress, Progress, load_state, save_state

if TYPE_CHECKING:
    from torch import Tensor

DIFFUSERS_EXTRA = ("diffusers", "avatar")
DENOISER_PRECISION: Literal["bf16", "fp32"] = "bf16"
_BATCH = 128


@dataclass(frozen=True)
class Size:
    """channels of the blocks, residual layers of each; millions of parameters.

    cost: of a pass, where that of size s is 1: by multiplications, and for tiny and xs, which are
    there for CPUs, by what one takes. attends: whether there is attention at 16 pixels, with one
    head as in DDPM. updates: of its weights that a fit to 50,000 images takes.
    """

    channels: tuple[int, ...]
    layers: int
    millions: float
    cost: float
    attends: bool = True
    updates: int = 100_000

    @property
    def multiple(self) -> int:
        """What the side of an image has to be divisible by."""
        return 2 ** (len(self.channels) - 1)


DENOISER_SIZES = {
    "tiny": Size((16, 32, 32), 1, 0.27, 0.12, attends=False),
    "xs": Size((32, 64, 64), 1, 1.1, 0.4),
    "s": Size((64, 128, 128, 128), 2, 9.0, 1.0),
    "m": Size((128, 256, 256, 256), 2, 35.7, 3.9, updates=300_000),
}


@dataclass(frozen=True)
class DenoiserPlan:
    """How a noise predictor is fitted.

    size: a key of `DENOISER_SIZES`. updates: of its weights. horizon: largest number of steps of
    noise that it learns to see. flip: whether images may be mirrored, None: where those of the
    dataset may. few: how many images, drawn at random, it is fitted to; 0: all.
    schedule: of its steps.
    """

    size: str
    updates: int
    horizon: int
    flip: bool | None = None
    few: int = 0
    schedule: NoiseSchedule = "linear"

    def among(self, images: int) -> int:
        """How many of so many images it is fitted to."""
        return min(self.few, images) if self.few else images

    def recipe(self, images: int) -> Recipe:
        """Whole epochs that come nearest to `updates`, with at most 5,000 to warm up."""
        each = max(1, images // _BATCH)
        epochs = max(1, round(self.updates / each))
        return Recipe(
            epochs=epochs,
            batch_size=_BATCH,
            lr=2e-4,
            optimizer="adam",
            weight_decay=0.0,
            schedule="constant",
            warmup_epochs=min(5000 // each, epochs // 10),
            grad_clip=1.0,
            drop_last=True,
            precision=DENOISER_PRECISION,
        )

    def cost(self, images: int) -> float:
        """The cost of the fit in epochs of a ResNet-18 on these images.

        It is 740 for 100,000 updates of size s on 50,000.
        """
        own = self.among(images)
        size = min(_BATCH, own)
        seen = self.recipe(own).epochs * (own // size) * size  # incomplete batches are left out
        return DENOISER_SIZES[self.size].cost * 2.89 * seen / images

    def passing(self, calls: int) -> float:
        """The cost of so many passes through the predictor in such epochs: 58 for 60 at size s."""
        return DENOISER_SIZES[self.size].cost * 58 * calls / 60

    @property
    def nbytes(self) -> int:
        """What its weights take."""
        return round(4e6 * DENOISER_SIZES[self.size].millions)

    def resolved(self) -> dict[str, Any]:
        """All that decides the weights, as JSON values."""
        fields = asdict(self)
        for name, usual in (("few", 0), ("schedule", "linear")):  # younger than the first keys
            if fields[name] == usual:
                del fields[name]
        return {**fields, "version": 2}


@dataclass(frozen=True)
class Prior:
    """A predictor that is fitted before a defense is asked, to images that the defense never sees.

    data: the dataset that these are of; empty for that of the trial, clean. part: which of its
    images, `train`, `val` (held out by the protocol) or `test`, on which victims are measured.
    """

    plan: DenoiserPlan
    data: str = ""
    part: Literal["train", "val", "test"] = "train"


def unet(size: str, side: int, inputs: int = 3) -> nn.Module:
    """A DDPM's U-Net, from so many channels to three."""
    from diffusers import UNet2DModel

    channels = DENOISER_SIZES[size].channels
    down, up = ["DownBlock2D"] * len(channels), ["UpBlock2D"] * len(channels)
    for level in range(len(channels)):
        if DENOISER_SIZES[size].attends and side >> level == 16:
            down[level], up[-1 - level] = "AttnDownBlock2D", "AttnUpBlock2D"
    return UNet2DModel(
        sample_size=side,
        in_channels=inputs,
        layers_per_block=DENOISER_SIZES[size].layers,
        block_out_channels=channels,
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        norm_num_groups=min(32, channels[0]),
        attention_head_dim=None,
        dropout=0.1,
    )


def fitted(
    plan: DenoiserPlan, images: Images, fit_context: FitContext, progress: Progress | None = None
) -> dict[str, Tensor]:
    """Averaged weights of a `unet` that minimize the mean squared error of the noise in images.

    Goes on from the checkpoint in `progress`, kept after every epoch. Defenses have none: it leads
    to the store, with clean images and names of attacks.
    """
    stream, device = fit_context.stream.child("denoiser"), fit_context.device
    with forked(stream.seed("init")):
        network = unet(plan.size, images.shape[-1]).to(device)
    if plan.few:
        order = torch.randperm(len(images), generator=stream.generator("few"))
        images = images.rows(order[: plan.among(len(images))])
    recipe = plan.recipe(len(images))
    left = kept_shares(plan.schedule).to(device, torch.float32)
    flip = CropFlip(0, flips(fit_context.augmentation) if plan.flip is None else plan.flip)

    def loss(batch: Batch) -> Tensor:
        x = 2 * flip(batch.x, batch.rng) - 1
        i = draws.randint(0, plan.horizon, (len(x),), batch.rng, x.device)
        noise = draws.randn(x.shape, batch.rng, x.device)
        share = left[i].view(-1, 1, 1, 1)
        with autocast(recipe.precision, device):
            noisy = share.sqrt() * x + (1 - share).sqrt() * noise
            found = network(noisy, label_of(i, plan.schedule)).sample
        return (found.float() - noise).square().mean()

    fit = AveragedFit(network, loss, images.to(device), recipe, stream, plan.updates)
    return fit.run(progress or NoProgress())


def most_kept(updates: int) -> float:
    """The most that averages over so many updates keep of themselves: less where they are few."""
    return 0.9999 if updates >= 50_000 else 0.999


@dataclass
class AveragedFit:
    """A training whose result is the average of the weights on the way.

    loss: of a batch, a scalar. images: on the device. updates: how many there will be, about.
    """

    network: nn.Module
    loss: Callable[[Batch], Tensor]
    images: Images
    recipe: Recipe
    stream: Stream
    updates: int

    def run(self, progress: Progress) -> dict[str, Tensor]:
        """The averaged weights; goes on from the checkpoint in `progress`, kept by epochs."""
        average = Averaged(self.network, most_kept(self.updates))

        def step(batch: Batch) -> Step:
            average.update(self.network)  # by the weights that the update before left
            loss = self.loss(batch)
            return Step(loss, torch.zeros((), device=loss.device), len(batch.x))

        trainer = Trainer(self.network, step, self.images, self.recipe, self.stream)
        epochs = self.recipe.epochs
        for epoch in range(_restored(progress, trainer, average), epochs):
            trainer.epoch(epoch)
            state = {"done": epoch + 1, "trainer": trainer.state_dict()}
            save_state(progress, {**state, "mean": average.state_dict()})
            progress.report(epoch + 1, epochs)
        average.update(self.network)
        return average.network.state_dict()


def _restored(progress: Progress, trainer: Trainer, average: Averaged) -> int:
    """Go on from a checkpoint; returns the number of finished epochs."""
    state = load_state(progress)
    if state is None:
        return 0
    trainer.load_state_dict(state["trainer"])
    average.load_state_dict(state["mean"])
    return int(state["done"])


class Averaged:
    """Exponential averages of a network's weights, of which the early ones are soon forgotten.

    highest: the most that an average keeps of itself. Nothing here asks the device for a number,
    as torch's own does twice an update.
    """

    def __init__(self, network: nn.Module, highest: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.highest = highest
        self.count = 0

    @no_grad
    def update(self, network: nn.Module) -> None:
        """Take in the weights as they are; buffers are taken over."""
        means: list[Tensor] = [*self.network.parameters()]
        now: list[Tensor] = [*network.parameters()]
        keeps = min(self.highest, (1 + self.count) / (10 + self.count)) if self.count else 0.0
        torch._foreach_lerp_(means, now, 1 - keeps)
        for mine, theirs in zip(self.network.buffers(), network.buffers(), strict=True):
            mine.copy_(theirs)
        self.count += 1

    def state_dict(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.count = int(state["count"])


def predictor(
    plan: DenoiserPlan, weights: Mapping[str, Tensor], side: int, device: torch.device
) -> Predictor:
    """What was fitted, for images of `side` pixels."""
    with forked(0):  # diffusers draws initial weights, which are then replaced
        network = unet(plan.size, side)
    network.load_state_dict(dict(weights))
    return of_unet(network.to(device), side, DENOISER_PRECISION, plan.schedule)


def of_unet(
    network: nn.Module, side: int, precision: str = "fp32", schedule: NoiseSchedule = "linear"
) -> Predictor:
    """A network of diffusers as a noise predictor; its steps count as ours.

    precision: what it was fitted in. The solvers' sums are float32 in any case.
    """
    freeze(network)

    @no_grad
    def noise(x: Tensor, i: int) -> Tensor:
        steps = label_of(torch.full((len(x),), i, device=x.device), schedule)
        with autocast(precision, x.device):
            return in_parts(lambda *part: network(*part).sample, x, steps).float()

    return Predictor(noise, side, schedule)
