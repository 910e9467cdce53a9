"""CIE L*u*v* scaled to the unit cube, differentiable in both directions.

Images are float32 (N, 3, ...). Denominators carry 1e-10 and powers are taken of clamped values, so
that gradients stay finite at black.
"""

from __future__ import annotations

import torch
from torch import Tensor

_TO_XYZ = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9504))
_TO_RGB = ((3.2406, -1.5372, -0.4986), (-0.9689, 1.8758, 0.0415), (0.0557, -0.2040, 1.0570))
_WHITE = (0.1978, 0.4683)  # u', v' of the white point
_TINY = 1e-10
_CUT = (6 / 29) ** 3  # below this luminance L is linear


def to_luv(rgb: Tensor) -> Tensor:
    """sRGB in [0, 1] -> (L / 100, (u + 100) / 200, (v + 100) / 200)."""
    bent = ((rgb.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4
    x, y, z = _mix(_TO_XYZ, torch.where(rgb > 0.04045, bent, rgb / 12.92))
    sum_ = x + 15 * y + 3 * z + _TINY
    light = torch.where(y > _CUT, 116 * y.clamp(min=_CUT) ** (1 / 3) - 16, y * (29 / 3) ** 3)
    u = 13 * light * (4 * x / sum_ - _WHITE[0])
    v = 13 * light * (9 * y / sum_ - _WHITE[1])
    return torch.stack([light / 100, (u + 100) / 200, (v + 100) / 200], 1)


def to_rgb(luv: Tensor) -> Tensor:
    """The inverse, clipped to sRGB in [0, 1]; colors outside the gamut lose their chroma first."""
    light, u, v = luv[:, 0] * 100, luv[:, 1] * 200 - 100, luv[:, 2] * 200 - 100
    scale = 13 * light + _TINY
    u, v = u / scale + _WHITE[0], v / scale + _WHITE[1]
    y = torch.where(light > 8, ((light.clamp(min=8) + 16) / 116) ** 3, light * (3 / 29) ** 3)
    x = 9 * y * u / (4 * v + _TINY)
    z = y * (12 - 3 * u - 20 * v) / (4 * v + _TINY)
    linear = torch.stack(_mix(_TO_RGB, torch.stack([x, y, z], 1).clamp(0, 1.1)), 1)
    bent = 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear > 0.0031308, bent, linear * 12.92).clamp(0, 1)


def _mix(matrix: tuple[tuple[float, ...], ...], values: Tensor) -> list[Tensor]:
    """The rows of matrix times the three channels of values (N, 3, ...)."""
    channels = values.unbind(1)
    return [sum(w * c for w, c in zip(row, channels, strict=True)) for row in matrix]  # type: ignore[misc]
