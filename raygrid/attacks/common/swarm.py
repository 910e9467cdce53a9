"""Shifts of whole color channels, found by a particle swarm, and how unnatural they look."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raygrid.core.lazy import nn, torch

if TYPE_CHECKING:
    from torch import Tensor

_WINDOW = 7
"""Side of the windows over which structural similarity is taken."""


@dataclass(frozen=True)
class Swarm:
    """A particle swarm without random factors in its steps (Kennedy and Eberhart 1995).

    Positions start in [-reach, reach], velocities in a tenth of that. A velocity becomes 0.5 of
    itself, 0.3 of the way to the particle's own best position and 0.3 of that to the best of all.
    aliased: the best of all is the particle that found it, wherever it has moved since.
    """

    particles: int
    iterations: int
    reach: float
    aliased: bool

    def __call__(
        self, value: Callable[[Tensor], float], dimensions: int, rng: torch.Generator
    ) -> Tensor:
        """The position that is returned as the best, float64 (dimensions,); value: to be lowered.

        Zeros if no position has a value that is a number.
        """
        shape = self.particles, dimensions
        position, velocity = (
            (torch.rand(shape, generator=rng, dtype=torch.float64) * 2 - 1) * scale
            for scale in (self.reach, self.reach / 10)
        )
        own, own_values = position.clone(), [float("inf")] * self.particles
        best, best_value = torch.zeros(dimensions, dtype=torch.float64), float("inf")
        for _ in range(self.iterations):
            for number, place in enumerate(position):
                found = value(place)
                if found < own_values[number]:
                    own[number], own_values[number] = place, found
                if found < best_value:  # `place` is a view of the positions, which move
                    best, best_value = place if self.aliased else place.clone(), found
            velocity = 0.5 * velocity + 0.3 * (own - position) + 0.3 * (best - position)
            position += velocity
        return best.clone()


def unnatural(changed: Tensor, clean: Tensor, least_psnr: float, least_ssim: float) -> Tensor:
    """How far each image falls short of a signal-to-noise ratio (dB) and of a similarity, (n,).

    changed, clean: (n, C, H, W) in [0, 1].
    """
    error = (changed - clean).square().flatten(1).mean(1)
    short = least_psnr + 10 * error.clamp_min(1e-20).log10()
    return short.clamp_min(0) + (least_ssim - uniform_similarity(changed, clean)).clamp_min(0)


def uniform_similarity(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity of images (n, C, H, W) in [0, 1], mean over channels and places: (n,).

    Windows of 7x7 pixels that lie inside, all alike; unbiased variances (Wang et al. 2004, as in
    scikit-image).
    """
    count = _WINDOW**2

    def mean(x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(x, _WINDOW, 1)

    ua, ub = mean(a), mean(b)
    scale = count / (count - 1)
    va, vb = scale * (mean(a * a) - ua * ua), scale * (mean(b * b) - ub * ub)
    vab = scale * (mean(a * b) - ua * ub)
    c1, c2 = 0.01**2, 0.03**2
    top = (2 * ua * ub + c1) * (2 * vab + c2)
    return (top / ((ua * ua + ub * ub + c1) * (va + vb + c2))).flatten(1).mean(1)
