"""The variance-preserving diffusion: noise in, two ways of taking it out again.

Images are floats in [-1, 1]; `i` counts steps from 0, to 999 on the linear schedule and to 3,999 on
the cosine one; a noise predictor maps (x, i) to the noise that x contains, in units of its standard
deviation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Literal, TypeAlias

from raygrid.core import draws
from raygrid.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

NOISE_STEPS = 1000

NoiseSchedule = Literal["linear", "cosine"]
SCHEDULE_STEPS: dict[NoiseSchedule, int] = {"linear": NOISE_STEPS, "cosine": 4000}
"""How many steps of noise there are: Ho et al. 2020, Nichol and Dhariwal 2021."""

NoiseOf: TypeAlias = "Callable[[Tensor, int], Tensor]"
Solver: TypeAlias = "Callable[[Tensor, NoiseOf, int, torch.Generator, int], Tensor]"


@cache
def kept_shares(schedule: NoiseSchedule = "linear") -> Tensor:
    """The share of an image's variance that is left after step i, float64 (steps,) on the CPU.

    `linear`: each step takes 1e-4 to 0.02 of it. `cosine`: the squared cosine of a quarter turn,
    but for 0.8 % of it at either end; no step takes more than 0.999.
    """
    if schedule == "linear":
        betas = torch.linspace(1e-4, 0.02, NOISE_STEPS, dtype=torch.float64, device="cpu")
    else:
        times = torch.linspace(
            0, 1, SCHEDULE_STEPS[schedule] + 1, dtype=torch.float64, device="cpu"
        )
        heights = ((times + 0.008) / 1.008 * math.pi / 2).cos().square()
        betas = (1 - heights[1:] / heights[:-1]).clamp_(max=0.999)
    return torch.cumprod(1 - betas, 0)


def kept_after(steps: int, schedule: NoiseSchedule = "linear") -> float:
    """The product of the first `steps` factors; 1 for none."""
    return float(kept_shares(schedule)[steps - 1]) if steps else 1.0


def label_of(step: Tensor, schedule: NoiseSchedule) -> Tensor:
    """What networks are told of step i: the number of the linear step at the same time."""
    return step * (NOISE_STEPS / SCHEDULE_STEPS[schedule])


def diffuse(
    x: Tensor, steps: int, rng: torch.Generator, schedule: NoiseSchedule = "linear"
) -> Tensor:
    """Images after `steps` steps: sqrt(a) x + sqrt(1 - a) e with e ~ N(0, I)."""
    kept = kept_after(steps, schedule)
    return math.sqrt(kept) * x + math.sqrt(1 - kept) * _normal(x, rng)


def ancestral(
    x: Tensor,
    noise: NoiseOf,
    steps: int,
    rng: torch.Generator,
    stride: int = 1,
    schedule: NoiseSchedule = "linear",
) -> Tensor:
    """DDPM sampling from step `steps` down: posterior mean with the image clipped to [-1, 1],
    posterior variance, no noise in the last step. stride: steps that are taken at once.
    """
    for at in range(steps, 0, -stride):
        kept, before = (kept_after(max(0, i), schedule) for i in (at, at - stride))
        alpha = kept / before
        image = (x - math.sqrt(1 - kept) * noise(x, at - 1)) / math.sqrt(kept)
        x = (
            math.sqrt(before) * (1 - alpha) * image.clamp(-1, 1)
            + math.sqrt(alpha) * (1 - before) * x
        ) / (1 - kept)
        if at > stride:
            x = x + math.sqrt((1 - alpha) * (1 - before) / (1 - kept)) * _normal(x, rng)
    return x


def euler(x: Tensor, noise: NoiseOf, steps: int, rng: torch.Generator, stride: int = 1) -> Tensor:
    """Euler-Maruyama on the reverse equation, from time steps / 1000 to 1e-5 in steps of
    stride / 1000.

    beta(t) = 0.1 + 19.9 t, kept(t) = exp(-9.95 t^2 - 0.1 t). The last step adds noise as well.
    """
    for at in range(steps, 0, -stride):
        time = at / NOISE_STEPS
        width = min(stride / NOISE_STEPS, time - 1e-5)
        beta = 0.1 + 19.9 * time
        spread = math.sqrt(1 - math.exp(-9.95 * time**2 - 0.1 * time))
        drift = beta * x / 2 - beta * noise(x, at - 1) / spread
        x = x + drift * width + math.sqrt(beta * width) * _normal(x, rng)
    return x


@dataclass(frozen=True)
class Predictor:
    """A noise predictor, the side of the images that it takes, and by what its steps count."""

    noise: NoiseOf
    side: int
    schedule: NoiseSchedule = "linear"


def in_parts(ask: Callable[[Tensor, Tensor], Tensor], x: Tensor, labels: Tensor) -> Tensor:
    """What a network says of images x (n, 3, S, S) and a label each, some at a time.

    250 of 32 pixels go through it together, fewer of larger ones: what it holds of an image grows
    with its area, and for all 250 of 256 pixels no card would have room.
    """
    size = max(1, 250 * 32**2 // max(x.shape[-1], 32) ** 2)
    parts = zip(x.split(size), labels.split(size), strict=True)
    return torch.cat([ask(*part) for part in parts])


def noise_error(predictor: Predictor, x: Tensor, steps: int, rng: torch.Generator) -> float:
    """Mean squared error of the noise in images x (n, 3, S, S) after `steps` steps, as a share of
    what is left by the best predictor that knows mean and variance of every pixel and no more.

    That one is exact for Gaussian images (its noise is `kept` * var / (`kept` * var + 1 - `kept`)
    off), and 1 or more says that a network knows nothing of such images.
    """
    kept, drawn = kept_after(steps, predictor.schedule), _normal(x, rng)
    noisy = math.sqrt(kept) * x + math.sqrt(1 - kept) * drawn
    off = (predictor.noise(noisy, steps - 1) - drawn).square().mean()
    signal = kept * x.var(0)
    return float(off / (signal / (signal + 1 - kept)).mean().clamp_min(1e-12))


SOLVERS: dict[str, Solver] = {"euler": euler, "ancestral": ancestral}


def solver_of(name: str, schedule: NoiseSchedule) -> Solver:
    """A solver by its name; `euler` knows the linear schedule alone."""
    if schedule == "linear":
        return SOLVERS[name]
    assert name == "ancestral", f"{name} has no {schedule} schedule"
    return partial(ancestral, schedule=schedule)


def _normal(x: Tensor, rng: torch.Generator) -> Tensor:
    return draws.randn(x.shape, rng, x.device)
