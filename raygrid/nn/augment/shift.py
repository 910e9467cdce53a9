"""TAP's augmentation: a bilinear shift and a flip."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raygrid.core import draws
from raygrid.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


def affine_shift(
    x: Tensor,
    rng: torch.Generator,
    fill: Tensor | float = 0.0,
    mirrored: Tensor | None = None,
) -> Tensor:
    """`shift_by` with draws from a generator; mirrored: bool (n,), which are, where that is set."""
    drawn = draws.rand((len(x), 3), rng, x.device)
    if mirrored is not None:
        drawn = torch.cat([drawn[:, :2], (~mirrored)[:, None].float()], 1)
    return shift_by(x, drawn, fill)


def shift_by(x: Tensor, draws: Tensor, fill: Tensor | float = 0.0) -> Tensor:
    """Bilinear shift by up to an eighth of the side, and flip; differentiable in x.

    draws: uniform in [0, 1), (n, 3): shift to the right, shift down, flip below 1/2. Shifts are
    uniform in [-f, f] in normalized coordinates, f = linspace(0, 1, S)[S // 4]. The same as
    affine_grid and grid_sample with zeros outside and align_corners; as products of matrices it
    is faster and has one order of sums on a GPU. fill: what is outside the image instead of
    zeros, a number or one for each channel, (1, C, 1, 1).
    """
    shifts = (draws[:, :2] * 2 - 1) * ((x.shape[-1] // 4) / (x.shape[-1] - 1))
    mirrored = torch.where(draws[:, 2] < 0.5, -1.0, 1.0)
    across = _weights(shifts[:, 0], mirrored, x.shape[-1])
    down = _weights(shifts[:, 1], torch.ones_like(mirrored), x.shape[-2])
    return down[:, None] @ (x - fill) @ across[:, None].transpose(-1, -2) + fill


def _weights(shift: Tensor, scale: Tensor, side: int) -> Tensor:
    """Weight of pixel i in pixel j of the result: (n, side, side), rows sum to 1 or less."""
    pixels = torch.arange(side, device=shift.device, dtype=torch.float32)
    normalized = pixels * (2 / (side - 1)) - 1
    places = (normalized * scale[:, None] + shift[:, None] + 1) * ((side - 1) / 2)
    return (1 - (places[:, :, None] - pixels).abs()).clamp_(min=0)
