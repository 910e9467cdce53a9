"""A diffusion bridge from the images of pairs to their partners, variance-exploding.

Zhou et al. 2024, "Denoising Diffusion Bridge Models", and BridgePure's use of it. Images are floats
in [-1, 1]; sigma runs from 0 (the clean image) to `MOST_SIGMA` (the poisoned one).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from raygrid.core import draws
from raygrid.core.images import Images
from raygrid.core.lazy import nn, no_grad, torch
from raygrid.core.seeds import forked
from raygrid.nn.augment import CropFlip, flips
from raygrid.nn.context import FitContext
from raygrid.nn.diffusion.denoisers import DENOISER_PRECISION, DENOISER_SIZES, AveragedFit, unet
from raygrid.nn.networks import freeze
from raygrid.nn.recipes import Recipe
from raygrid.nn.steps import Batch, autocast
from raygrid.storage.checkpoints import Progress

if TYPE_CHECKING:
    from torch import Tensor

LEAST_SIGMA, MOST_SIGMA, DATA_SIGMA = 0.002, 80.0, 0.5
"""Smallest and largest sigma; the standard deviation of images that the network is scaled by."""
_BATCH = 256
_CURVE = 7  # how much closer noise levels lie where there is little noise

CleanOf: TypeAlias = "Callable[[Tensor, float], Tensor]"
"""(images on the bridge, sigma) -> the clean images that they are taken for."""


@dataclass(frozen=True)
class BridgePlan:
    """How a bridge is fitted.

    size: a key of `DENOISER_SIZES`. updates, lr: of its weights. pairs: how many images it sees.
    flip: whether pairs may be mirrored, None: where images of the dataset may.
    """

    size: str
    updates: int
    pairs: int
    lr: float = 1e-4
    flip: bool | None = None

    def recipe(self) -> Recipe:
        """Whole epochs over the pairs that come nearest to `updates`."""
        each = max(1, self.pairs // _BATCH)
        return Recipe(
            epochs=max(1, round(self.updates / each)),
            batch_size=_BATCH,
            lr=self.lr,
            optimizer="adam",
            weight_decay=0.0,
            schedule="constant",
            drop_last=True,
            precision=DENOISER_PRECISION,
        )

    def cost(self, images: int) -> float:
        """The cost of the fit in epochs of a ResNet-18 on so many images."""
        seen = self.updates * min(_BATCH, self.pairs)
        return DENOISER_SIZES[self.size].cost * 2.89 * seen / images

    def passing(self, calls: int) -> float:
        """The cost of so many passes through the network in such epochs."""
        return DENOISER_SIZES[self.size].cost * 58 * calls / 60

    @property
    def nbytes(self) -> int:
        """What its weights take, and the rows of the pairs."""
        return round(4e6 * DENOISER_SIZES[self.size].millions) + 8 * self.pairs

    def resolved(self) -> dict[str, Any]:
        """All that decides the weights, as JSON values."""
        return {**asdict(self), "version": 1}


def between(clean: Tensor, poisoned: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """Points of the bridge: sigma (n, 1, 1, 1), all others images (n, 3, S, S).

    With s = (sigma / MOST_SIGMA)^2 the mean is s poisoned + (1 - s) clean,
    the sd sigma sqrt(1 - s).
    """
    share = (sigma / MOST_SIGMA) ** 2
    return share * poisoned + (1 - share) * clean + sigma * (1 - share).sqrt() * noise


def scalings(sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the network's input and output are multiplied by, and the share of the input that is
    added to the output: (skip, out, inside).

    They are those for which input and target have variance 1 if clean and poisoned images are
    independent with deviation `DATA_SIGMA`.
    """
    share, data = (sigma / MOST_SIGMA) ** 2, DATA_SIGMA**2
    bridge = sigma**2 * (1 - share)
    variance = (share**2 + (1 - share) ** 2) * data + bridge
    rest = share**2 * data**2 + data * bridge
    return (1 - share) * data / variance, (rest / variance).sqrt(), variance.rsqrt()


def restored(network: nn.Module, x: Tensor, poisoned: Tensor, sigma: Tensor) -> Tensor:
    """The clean images that a network takes points of the bridge for.

    network: of diffusers, with six channels in. sigma: (n,).
    """
    skip, out, inside = (value.view(-1, 1, 1, 1) for value in scalings(sigma))
    label = 250 * (sigma + 1e-44).log()
    with autocast(DENOISER_PRECISION, x.device):
        found: Tensor = network(torch.cat([inside * x, poisoned], 1), label).sample
    return out * found.float() + skip * x


def noise_levels(steps: int) -> list[float]:
    """Sigma before each of `steps` steps, largest first, and 0 after the last."""
    high, low = (MOST_SIGMA - 1e-4) ** (1 / _CURVE), LEAST_SIGMA ** (1 / _CURVE)
    shares = torch.linspace(0, 1, steps, dtype=torch.float64, device="cpu").tolist()
    return [*((high + share * (low - high)) ** _CURVE for share in shares), 0.0]


@dataclass(frozen=True)
class BridgeSampler:
    """Steps from poisoned images to clean ones: Heun's method on the bridge's equation.

    churn: share of each step that is taken with noise before. guidance: weight of the term that
    pulls away from the poisoned image.
    """

    steps: int
    churn: float
    guidance: float

    @property
    def calls(self) -> int:
        """How often the network is asked about each image."""
        return self.steps * (3 if self.churn else 2) - 1

    def __call__(self, poisoned: Tensor, clean_of: CleanOf, rng: torch.Generator) -> Tensor:
        """Images (n, 3, S, S) in [-1, 1]; `clean_of` is clipped to this range."""
        levels, x = noise_levels(self.steps), poisoned
        for number in range(self.steps):
            sigma, after = levels[number], levels[number + 1]
            if self.churn:
                inner = sigma + self.churn * (after - sigma)
                x = self._noisy(x, clean_of, sigma, inner, rng)
                sigma = inner
            slope = self._slope(x, poisoned, clean_of, sigma)
            moved = x + slope * (after - sigma)
            if after:
                slope = (slope + self._slope(moved, poisoned, clean_of, after)) / 2
            x = x + slope * (after - sigma)
        return x.clamp(-1, 1)

    def _slope(self, x: Tensor, poisoned: Tensor, clean_of: CleanOf, sigma: float) -> Tensor:
        toward = (clean_of(x, sigma).clamp(-1, 1) - x) / sigma**2
        away = (poisoned - x) / (MOST_SIGMA**2 - sigma**2)
        return -sigma * (toward - self.guidance * away)

    def _noisy(
        self, x: Tensor, clean_of: CleanOf, sigma: float, after: float, rng: torch.Generator
    ) -> Tensor:
        """A step of Euler and Maruyama on the equation with noise."""
        toward = (clean_of(x, sigma).clamp(-1, 1) - x) / sigma**2
        noise = draws.randn(x.shape, rng, x.device)
        wide = math.sqrt(2 * sigma * (sigma - after))
        return x - 2 * sigma * toward * (after - sigma) + wide * noise


def fitted_bridge(
    plan: BridgePlan, clean: Images, poisoned: Images, fit_context: FitContext, progress: Progress
) -> dict[str, Tensor]:
    """Averaged weights of a U-Net that knows clean images by points of the bridge to their poisons.

    It minimizes the squared error, weighted so that the network's own output has weight 1; sigma is
    uniform. clean, poisoned: the pairs, in the same order.
    """
    stream, device = fit_context.stream.child("bridge"), fit_context.device
    with forked(stream.seed("init")):
        network = unet(plan.size, clean.shape[-1], 6).to(device)
    partners = poisoned.to(device)
    flip = CropFlip(0, flips(fit_context.augmentation) if plan.flip is None else plan.flip)

    def loss(batch: Batch) -> Tensor:
        both = torch.cat([batch.x, partners.floats(batch.index)], 1)
        x, theirs = (2 * flip(both, batch.rng) - 1).chunk(2, 1)
        sigma = LEAST_SIGMA + draws.rand((len(x),), batch.rng, device) * (MOST_SIGMA - LEAST_SIGMA)
        noise = draws.randn(x.shape, batch.rng, device)
        on_bridge = between(x, theirs, sigma.view(-1, 1, 1, 1), noise)
        weights = scalings(sigma)[1].square().view(-1, 1, 1, 1)
        return ((restored(network, on_bridge, theirs, sigma) - x).square() / weights).mean()

    return AveragedFit(network, loss, clean.to(device), plan.recipe(), stream, plan.updates).run(
        progress
    )


def bridge_of(
    plan: BridgePlan, weights: Mapping[str, Tensor], side: int, device: torch.device
) -> Callable[[Tensor], CleanOf]:
    """What was fitted: from poisoned images (n, 3, S, S) to the function that restores them."""
    with forked(0):  # diffusers draws initial weights, which are then replaced
        network = unet(plan.size, side, 6)
    network.load_state_dict(dict(weights))
    freeze(network.to(device))

    def of(poisoned: Tensor) -> CleanOf:
        @no_grad
        def clean_of(x: Tensor, sigma: float) -> Tensor:
            return restored(network, x, poisoned, torch.full((len(x),), sigma, device=x.device))

        return clean_of

    return of
