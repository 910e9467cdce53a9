"""Color normalizations: each image's channels are brought to one range or distribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from raygrid.core.images import cut_to_levels, to_uint8
from raygrid.core.lazy import torch
from raygrid.core.registry import Card
from raygrid.defenses.base import DEFENSES
from raygrid.defenses.common.filters import PixelFilter

if TYPE_CHECKING:
    from torch import Tensor

_WHITE = (0.950456, 1.0, 1.088754)
"""XYZ of white (D65), as OpenCV has it."""
_XYZ = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
_YUV = ((0.299, 0.587, 0.114), (-0.147, -0.289, 0.436), (0.615, -0.515, -0.1))
"""Rows: Y, 0.492 (B - Y), 0.877 (R - Y)."""


@DEFENSES.register("color_normalize")
@dataclass(frozen=True, kw_only=True)
class ColorNormalize(PixelFilter):
    """Takes from an image what shifts of whole color channels leave in it.

    channel: each channel less its mean over its spread, then all three together stretched from 0 to
    255. equalize: each channel's histogram is equalized. lab, yuv: each channel of that color space
    is stretched over its whole range.
    """

    card = Card(
        paper="Wang et al. 2026 (DUNE), adaptive defenses",
        code="wxldragon/DUNE@a35cbb6 (train.py: picn, histeq, lab, yuv)",
        cost="seconds for 50,000 images",
        notes="there images are normalized when they are shown, after crop and flip, so that the "
        "crop's border counts; here stored images are. OpenCV rounds in between; its whitening of "
        "`lab` and `yuv` is undone by the stretching that follows, so nothing is left of it. "
        "Colors that no screen has are clipped",
    )

    kind: Literal["channel", "equalize", "lab", "yuv"] = "channel"

    def change(self, pixels: Tensor) -> Tensor:
        if self.kind == "equalize":
            return equalized(pixels)
        x = pixels.float()
        if self.kind == "channel":
            mean, spread = x.mean((2, 3), keepdim=True), x.std((2, 3), False, True)
            x = (x - mean) / torch.where(spread < 1e-6, 1.0, spread)
            return to_uint8(stretched(x.flatten(1)).view_as(x), "trunc")
        if self.kind == "yuv":
            return to_uint8(from_yuv(whole(to_yuv(x / 255))))
        return to_uint8(from_lab(whole(lab_shares(to_lab(x / 255)))))


def stretched(values: Tensor) -> Tensor:
    """Each row from its smallest value at 0 to its largest at 1; constant rows are 0."""
    low, high = values.amin(-1, keepdim=True), values.amax(-1, keepdim=True)
    span = high - low
    return torch.where(span < 1e-6, 0.0, (values - low) / span.clamp_min(1e-6))


def whole(shares: Tensor) -> Tensor:
    """Each channel (n, 3, H, W), given as a share of its range, stretched over all of it.

    In whole levels before and after: the color of gray is none, not the error of a sum.
    """
    levels = (shares * 255).round()
    return cut_to_levels(stretched(levels.flatten(2))).view_as(levels)


def equalized(pixels: Tensor) -> Tensor:
    """Histogram equalization of each channel of uint8 (n, C, H, W) by OpenCV's rule.

    The darkest level that occurs becomes 0, level v the share of pixels above it and up to v,
    times 255, rounded; a constant channel stays.
    """
    flat = pixels.long().flatten(2).flatten(0, 1)
    counts = torch.zeros(len(flat), 256, dtype=torch.int64, device=pixels.device)
    counts.scatter_add_(1, flat, torch.ones_like(flat))
    below = counts.cumsum(1)
    first = counts.gather(1, flat.amin(1, keepdim=True))
    rest = flat.shape[1] - first
    levels = ((below - first).clamp_min(0) * 255.0 / rest.clamp_min(1)).round()
    made = levels.gather(1, flat)
    return torch.where(rest > 0, made, flat.double()).to(torch.uint8).view_as(pixels)


def _mixed(x: Tensor, matrix: Tensor) -> Tensor:
    return torch.einsum("ij,njhw->nihw", matrix.to(x), x)


def _center(x: Tensor) -> Tensor:
    """Where U and V are 0, as shares of 0 to 255, for Y, U and V."""
    return torch.tensor([0.0, 128 / 255, 128 / 255]).to(x).view(1, 3, 1, 1)


def to_yuv(x: Tensor) -> Tensor:
    """Y, U and V of colors (n, 3, H, W) in [0, 1], as shares of 0 to 255."""
    return (_mixed(x, torch.tensor(_YUV)) + _center(x)).clamp(0, 1)


def from_yuv(full: Tensor) -> Tensor:
    """The inverse, clipped to [0, 1]."""
    back = torch.linalg.inv(torch.tensor(_YUV, dtype=torch.float64)).float()
    return _mixed(full - _center(full), back).clamp(0, 1)


def to_lab(x: Tensor) -> Tensor:
    """CIE L*a*b* of sRGB colors (n, 3, H, W) in [0, 1]."""
    linear = torch.where(x > 0.04045, ((x + 0.055) / 1.055).clamp_min(0) ** 2.4, x / 12.92)
    xyz = _mixed(linear, torch.tensor(_XYZ)) / torch.tensor(_WHITE).to(x).view(1, 3, 1, 1)
    root = torch.where(xyz > 0.008856, xyz.clamp_min(1e-9) ** (1 / 3), 7.787 * xyz + 16 / 116)
    a, b, c = root.unbind(1)
    return torch.stack([116 * b - 16, 500 * (a - b), 200 * (b - c)], 1)


def lab_shares(lab: Tensor) -> Tensor:
    """L* as a share of 0 to 100, a* and b* of -128 to 127, clipped to [0, 1]."""
    low, span = torch.tensor([0.0, -128.0, -128.0]), torch.tensor([100.0, 255.0, 255.0])
    return ((lab - low.to(lab).view(1, 3, 1, 1)) / span.to(lab).view(1, 3, 1, 1)).clamp(0, 1)


def from_lab(full: Tensor) -> Tensor:
    """sRGB colors in [0, 1] of L* as a share of 0 to 100, a* and b* of -128 to 127."""
    light = full[:, 0] * 100
    green, blue = full[:, 1] * 255 - 128, full[:, 2] * 255 - 128
    middle = (light + 16) / 116
    root = torch.stack([middle + green / 500, middle, middle - blue / 200], 1)
    xyz = torch.where(root > 6 / 29, root**3, (root - 16 / 116) / 7.787)
    back = torch.linalg.inv(torch.tensor(_XYZ, dtype=torch.float64)).float()
    linear = _mixed(xyz * torch.tensor(_WHITE).to(full).view(1, 3, 1, 1), back).clamp(0, 1)
    curved = 1.055 * linear.clamp_min(1e-9) ** (1 / 2.4) - 0.055
    return torch.where(linear > 0.0031308, curved, 12.92 * linear)
