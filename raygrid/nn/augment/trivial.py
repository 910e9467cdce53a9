"""TrivialAugment's operations (Mueller and Hutter 2021) on batches, as kornia spells them.

Ranges and arithmetic are those of kornia's `TrivialAugment`, in two versions that differ in how
far images are moved. All but two are differentiable; equalize and posterize pass gradients as the
identity does. Images are float (n, C, H, H) in [0, 1]; a strength is float (n,).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from raygrid.core import draws
from raygrid.core.lazy import nn, torch

if TYPE_CHECKING:
    from torch import Tensor

Policy = Literal["trivial", "trivial_wide"]
"""`trivial`: kornia 0.6.12 to 0.8.2, `trivial_wide`: 0.9.0."""
Operation: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"


@dataclass(frozen=True)
class Ranged:
    """An operation and the uniform range of its strength; signed: either sign, by a coin."""

    operation: Operation
    low: float = 0.0
    high: float = 1.0
    signed: bool = False

    def __call__(self, x: Tensor, rng: torch.Generator) -> Tensor:
        u, coin = draws.rand((2, len(x)), rng, x.device)
        strength = self.low + (self.high - self.low) * u
        if self.signed:
            strength = torch.where(coin < 0.5, -strength, strength)
        return self.operation(x, strength)


def one_of(policy: Policy) -> Callable[[Tensor, torch.Generator], Tensor]:
    """One operation for the whole batch, its strength drawn for each image."""
    known = POLICIES[policy]

    def apply(x: Tensor, rng: torch.Generator) -> Tensor:
        which = int(draws.randint(0, len(known), (), rng))
        return known[which](x, rng)

    return apply


def auto_contrast(x: Tensor, _: Tensor) -> Tensor:
    """Stretch each channel to [0, 1]."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    return ((x - low) / (high - low + 1e-6)).clamp(0, 1)


def equalize(x: Tensor, _: Tensor) -> Tensor:
    """Flatten the histogram of each channel over 256 levels, by Pillow's rule."""
    return _equalized(x, 1.0)


def equalize_stretched(x: Tensor, _: Tensor) -> Tensor:
    """The same with kornia 0.6.12's counts: 256 bins of equal width between 0 and 255."""
    return _equalized(x, 256 / 255)


def _equalized(x: Tensor, stretch: float) -> Tensor:
    levels = x.detach() * 255
    counted = (levels * stretch).flatten(2).floor().clamp(0, 255).long()
    counts = torch.zeros(*counted.shape[:2], 256, device=x.device)
    counts.scatter_add_(2, counted, torch.ones_like(levels).flatten(2))
    place = torch.arange(256, device=x.device)
    last = torch.where(counts > 0, place, 0).amax(2, keepdim=True)  # the brightest level in use
    step = ((counts.sum(2, keepdim=True) - counts.gather(2, last)) / 255).floor()
    below = counts.cumsum(2) - counts
    table = ((below + (step / 2).floor()) / step.clamp_min(1)).floor().clamp(0, 255)
    mapped = table.gather(2, levels.flatten(2).long()).view_as(x)
    return _straight(torch.where(step[..., None] > 0, mapped, levels) / 255, x)


def posterize(x: Tensor, bits: Tensor) -> Tensor:
    """Keep so many bits of a level, rounded to whole ones; none are a black image.

    With kornia's detours: levels are cut off, not rounded, twice.
    """
    lost = (8 - bits.round().view(-1, 1, 1, 1)).int()
    shift = torch.bitwise_left_shift(torch.ones_like(lost), lost).to(x.dtype)  # exact anywhere
    top = (x.detach() * 255).floor() / shift / 255
    return _straight((top * 255).floor() * shift / 255 * (shift < 256), x)


def solarize(x: Tensor, threshold: Tensor) -> Tensor:
    """Turn values from the threshold on over."""
    return torch.where(x < threshold.view(-1, 1, 1, 1), x, 1 - x)


def enhance_contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply, which is what kornia calls contrast."""
    return (x * factor.view(-1, 1, 1, 1)).clamp(0, 1)


def enhance_brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Add the factor less 1."""
    return (x + (factor - 1).view(-1, 1, 1, 1)).clamp(0, 1)


def sharpness(x: Tensor, factor: Tensor) -> Tensor:
    """Blend with a 3x3 blur, whose border stays; a factor of 1 changes nothing."""
    box = nn.functional.avg_pool2d(x, 3, 1) * 9
    inner = x[..., 1:-1, 1:-1]
    blurred = ((box + 4 * inner) / 13).clamp(0, 1)
    moved = torch.lerp(blurred, inner, factor.view(-1, 1, 1, 1)).clamp(0, 1)
    rows = torch.cat([x[..., 1:-1, :1], moved, x[..., 1:-1, -1:]], 3)
    return torch.cat([x[..., :1, :], rows, x[..., -1:, :]], 2)


def rotate(x: Tensor, degrees: Tensor) -> Tensor:
    """Turn counterclockwise around the center."""
    angle = degrees.deg2rad()
    return moved(x, (angle.cos(), -angle.sin(), None), (angle.sin(), angle.cos(), None))


def shear_x(x: Tensor, degrees: Tensor) -> Tensor:
    """Rows slide to the left by the tangent for each pixel that they lie below the center."""
    return moved(x, (None, degrees.deg2rad().tan(), None), (None, None, None))


def shear_y(x: Tensor, degrees: Tensor) -> Tensor:
    """The same for columns, upward."""
    return moved(x, (None, None, None), (degrees.deg2rad().tan(), None, None))


def translate_x(x: Tensor, share: Tensor) -> Tensor:
    """Shift to the right by a share of the side; black comes in."""
    side = x.shape[-1]
    return moved(x, (None, None, -2 * share * side / (side - 1)), (None, None, None))


def translate_y(x: Tensor, share: Tensor) -> Tensor:
    """Shift down."""
    side = x.shape[-2]
    return moved(x, (None, None, None), (None, None, -2 * share * side / (side - 1)))


def pushed_x(x: Tensor, share: Tensor) -> Tensor:
    """Shift to the right as kornia 0.6.12 does, which takes the side for a pixel less."""
    return translate_x(x, share * (x.shape[-1] / (x.shape[-1] - 1)))


def pushed_y(x: Tensor, share: Tensor) -> Tensor:
    """The same down."""
    return translate_y(x, share * (x.shape[-2] / (x.shape[-2] - 1)))


_COLORS = (
    Ranged(auto_contrast),
    Ranged(posterize, 0, 4),
    Ranged(solarize, 0, 1),
    Ranged(enhance_contrast, 0.1, 1.9),
    Ranged(enhance_brightness, 0.1, 1.9),
    Ranged(sharpness, 0.1, 1.9),
)
POLICIES: dict[Policy, tuple[Ranged, ...]] = {
    "trivial": (
        *_COLORS,
        Ranged(equalize_stretched),
        Ranged(rotate, 0, 30),
        Ranged(shear_x, 0, 0.3),
        Ranged(shear_y, 0, 0.3),
        Ranged(pushed_x, 0, 0.5),
        Ranged(pushed_y, 0, 0.5),
    ),
    "trivial_wide": (
        *_COLORS,
        Ranged(equalize),
        Ranged(rotate, 0, 30, signed=True),
        Ranged(shear_x, 0, 54, signed=True),
        Ranged(shear_y, 0, 54, signed=True),
        Ranged(translate_x, 0, 0.5, signed=True),
        Ranged(translate_y, 0, 0.5, signed=True),
    ),
}
"""Degrees for rotation and shears, shares of the side for shifts."""

AffineRow: TypeAlias = "tuple[Tensor | None, Tensor | None, Tensor | None]"
Reading = Literal["bilinear", "nearest"]
"""What is read between pixels."""


def moved(x: Tensor, across: AffineRow, down: AffineRow, mode: Reading = "bilinear") -> Tensor:
    """Read every pixel where two rows of an affine map send it, in [-1, 1]; None: the identity.

    What lies outside is black.
    """
    zero, one = x.new_zeros(len(x)), x.new_ones(len(x))
    identity = ((one, zero, zero), (zero, one, zero))
    filled = [
        torch.stack([o if g is None else g.to(x.dtype) for g, o in zip(given, own, strict=True)], 1)
        for given, own in zip((across, down), identity, strict=True)
    ]
    grid = nn.functional.affine_grid(torch.stack(filled, 1), list(x.shape), align_corners=True)
    return nn.functional.grid_sample(x, grid, mode, align_corners=True)


def _straight(out: Tensor, x: Tensor) -> Tensor:
    """`out` with the gradient of x."""
    return out + (x - x.detach()) if x.requires_grad else out
