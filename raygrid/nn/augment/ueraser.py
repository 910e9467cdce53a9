"""UEraser's augmentation: plasma brightness and contrast, channel shuffle, TrivialAugment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from raygrid.core import draws
from raygrid.core.images import to_uint8
from raygrid.core.lazy import torch
from raygrid.core.registry import require
from raygrid.nn.augment.jpeg import recode
from raygrid.nn.augment.plasma import brightened, contrasted, plasma
from raygrid.nn.augment.trivial import Policy, one_of

if TYPE_CHECKING:
    from torch import Tensor

SHUFFLE_PROBABILITY = 0.5  # probability that an image's channels are shuffled
MOST_ROUGHNESS = 0.7  # largest roughness of maps
AugmentStep: TypeAlias = "Callable[[Tensor, torch.Generator], Tensor]"


@dataclass(frozen=True, kw_only=True)
class Erasing:
    """The augmentation and its parameters, which are those of every method that uses it.

    Raises SpecError for values out of range.
    """

    p: float = 0.5  # probability of each plasma step, for each image
    jpeg: Literal["none", "before", "after"] = "none"  # quality 10 to 99 before, 10 after the rest
    strength: float = 0.5  # least of plasma brightness; the largest is 1
    roughness: float = 0.3  # least of the maps of plasma contrast; the largest is 0.7
    policy: Policy = "trivial"  # how far TrivialAugment goes; trivial_wide: as in kornia 0.9

    def __post_init__(self) -> None:
        require(0 <= self.p <= 1, f"p is {self.p}, allowed are 0 to 1")
        strength, roughness = self.strength, self.roughness
        require(0 <= strength <= 1, f"strength is {strength}, allowed are 0 to 1")
        require(0 <= roughness <= 0.7, f"roughness is {roughness}, allowed are 0 to 0.7")

    def erase(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """Augment a batch (n, C, H, H) in [0, 1]; differentiable without `jpeg`.

        The operation of TrivialAugment is drawn for the whole batch, its strength for each image.
        Steps without a gradient (its equalize and posterize) have that of the identity.
        """

        if self.jpeg == "before":
            x = coded(x, draws.randint(10, 100, (len(x),), rng).tolist())
        with torch.autocast(x.device.type, enabled=False):
            for step in _steps(self):
                x = step(x, rng)
        x = x.clamp(0, 1)
        return coded(x, [10] * len(x)) if self.jpeg == "after" else x


def _steps(how: Erasing) -> Sequence[AugmentStep]:
    """What happens to a batch between the JPEGs, in this order."""

    def brightness(x: Tensor, rng: torch.Generator) -> Tensor:
        intensity = _uniform(x, how.strength, 1.0, rng)
        return brightened(x, plasma(x, _uniform(x, 0.3, MOST_ROUGHNESS, rng), rng), intensity)

    def contrast(x: Tensor, rng: torch.Generator) -> Tensor:
        return contrasted(x, plasma(x, _uniform(x, how.roughness, MOST_ROUGHNESS, rng), rng))

    return (
        lambda x, rng: _with_probability(how.p, brightness, x, rng),
        lambda x, rng: _with_probability(how.p, contrast, x, rng),
        shuffled_channels,
        one_of(how.policy),
    )


def _uniform(x: Tensor, low: float, high: float, rng: torch.Generator) -> Tensor:
    """One draw for each image."""
    return low + (high - low) * draws.rand((len(x),), rng, x.device)


def _with_probability(p: float, step: AugmentStep, x: Tensor, rng: torch.Generator) -> Tensor:
    """The step on the images that a coin picks; only these are computed."""
    rows = (draws.rand((len(x),), rng) < p).nonzero().squeeze(1)
    if len(rows) == 0:
        return x
    rows = draws.sent(rows, x.device)
    return x.index_copy(0, rows, step(x[rows], rng))


def shuffled_channels(x: Tensor, rng: torch.Generator) -> Tensor:
    """The channels of half of the images in a random order."""
    n, channels = x.shape[:2]
    order = draws.rand((n, channels), rng, x.device).argsort(1)
    chosen = draws.rand((n, 1), rng, x.device) < SHUFFLE_PROBABILITY
    order = torch.where(chosen, order, torch.arange(channels, device=x.device))
    return x[torch.arange(n, device=x.device)[:, None], order]


def coded(x: Tensor, qualities: Sequence[int]) -> Tensor:
    """A batch in [0, 1] after JPEG, each image with its own quality; no gradient passes."""
    pixels = to_uint8(x.detach()).cpu()
    pairs = zip(pixels.split(1), qualities, strict=True)
    decoded = torch.cat([recode(image, quality) for image, quality in pairs])
    return decoded.to(x.device).float().div_(255)
