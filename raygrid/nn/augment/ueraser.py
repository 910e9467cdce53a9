"""UEraser's augmentation: plasma brightness and contrast, channel shuffle, TrivialAugment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from raygrid.core.images import to_uint8
from raygrid.core.lazy import torch
from raygrid.core.registry import require
from raygrid.core.seeds import forked
from raygrid.nn.augment.jpeg import recode

if TYPE_CHECKING:
    from torch import Tensor

EXTRA = ("kornia", "ueraser")
SHUFFLE = 0.5  # probability that an image's channels are shuffled


@dataclass(frozen=True, kw_only=True)
class Erasing:
    """The augmentation and its parameters, which are those of every method that uses it.

    Raises SpecError for values out of range.
    """

    p: float = 0.5  # probability of each plasma step, for each image
    jpeg: Literal["none", "before", "after"] = "none"  # quality 10 to 99 before, 10 after the rest
    strength: float = 0.5  # least of plasma brightness; the largest is 1
    roughness: float = 0.3  # least of the maps of plasma contrast; the largest is 0.7

    def __post_init__(self) -> None:
        require(0 <= self.p <= 1, f"p is {self.p}, allowed are 0 to 1")
        strength, roughness = self.strength, self.roughness
        require(0 <= strength <= 1, f"strength is {strength}, allowed are 0 to 1")
        require(0 <= roughness <= 0.7, f"roughness is {roughness}, allowed are 0 to 0.7")

    def erase(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """Augment a batch (n, C, H, W) in [0, 1]; differentiable without `jpeg`.

        The operation of TrivialAugment is drawn for the whole batch, its strength for each image.
        Steps without a gradient (its equalize and posterize) have that of the identity.
        """
        from raygrid.nn.augment.straight_through import Through

        if self.jpeg == "before":
            draws = torch.randint(10, 100, (len(x),), generator=rng, device=rng.device)
            x = coded(x, draws.tolist())
        # kornia takes no generator: it draws from the global ones, which are put back afterwards
        seed = int(torch.randint(2**62, (1,), generator=rng, device=rng.device))
        with forked(seed, x.device), torch.autocast(x.device.type, enabled=False):
            for step in _steps(self.p, self.strength, self.roughness):
                x = Through.apply(step, x) if x.requires_grad else step(x)
        x = x.clamp(0, 1)
        return coded(x, [10] * len(x)) if self.jpeg == "after" else x


@lru_cache
def _steps(p: float, strength: float, roughness: float) -> Sequence[Any]:
    import kornia.augmentation as ka
    from kornia.augmentation.auto import TrivialAugment

    return (
        ka.RandomPlasmaBrightness(roughness=(0.3, 0.7), intensity=(strength, 1.0), p=p),
        ka.RandomPlasmaContrast(roughness=(roughness, 0.7), p=p),
        ka.RandomChannelShuffle(p=SHUFFLE),
        TrivialAugment(),
    )


def coded(x: Tensor, qualities: Sequence[int]) -> Tensor:
    """A batch in [0, 1] after JPEG, each image with its own quality; no gradient passes."""
    pixels = to_uint8(x.detach()).cpu()
    pairs = zip(pixels.split(1), qualities, strict=True)
    decoded = torch.cat([recode(image, quality) for image, quality in pairs])
    return decoded.to(x.device).float().div_(255)
