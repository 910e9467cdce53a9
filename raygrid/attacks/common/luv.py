"""CIE L*u*v* scaled to the unit cube, differentiable in both directions.

Images are float32 (N, 3, ...). Denominators carry 1e-10 and powers are taken of clamped values, so
that gradients stay finite at black.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raygrid.core.draws import sent
from raygrid.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_TO_XYZ = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9504))
_TO_PARTS = (  # 4 X, 9 Y, X + 15 Y + 3 Z, Y
    tuple(4 * x for x in _TO_XYZ[0]),
    tuple(9 * y for y in _TO_XYZ[1]),
    tuple(x + 15 * y + 3 * z for x, y, z in zip(*_TO_XYZ, strict=True)),
    _TO_XYZ[1],
)
_TO_RGB = ((3.2406, -1.5372, -0.4986), (-0.9689, 1.8758, 0.0415), (0.0557, -0.2040, 1.0570))
_WHITE = (0.1978, 0.4683)  # u', v' of the white point
_TINY = 1e-10
_CUT = (6 / 29) ** 3  # below this luminance L is linear


def to_luv(rgb: Tensor) -> Tensor:
    """sRGB in [0, 1] -> (L / 100, (u + 100) / 200, (v + 100) / 200)."""
    bent = ((rgb.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4
    return _luv(torch.where(rgb > 0.04045, bent, rgb / 12.92))


def to_rgb(luv: Tensor) -> Tensor:
    """The inverse, clipped to sRGB in [0, 1]; colors outside the gamut lose their chroma first."""
    linear = _linear(luv)
    bent = 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear > 0.0031308, bent, linear * 12.92).clamp(0, 1)


def into_gamut(luv: Tensor) -> Tensor:
    """`to_luv(to_rgb(luv))` at half the cost: clipping does not need the bent scale of sRGB."""
    return _luv(_linear(luv).clamp_(0, 1))


def _luv(linear: Tensor) -> Tensor:
    """From linear RGB in [0, 1]."""
    x4, y9, sum_, y = _mix(_TO_PARTS, linear).unbind(1)
    sum_ = sum_ + _TINY
    light = torch.where(y > _CUT, 116 * y.clamp(min=_CUT) ** (1 / 3) - 16, y * (29 / 3) ** 3)
    u = 13 * light * (x4 / sum_ - _WHITE[0])
    v = 13 * light * (y9 / sum_ - _WHITE[1])
    return torch.stack([light / 100, (u + 100) / 200, (v + 100) / 200], 1)


def _linear(luv: Tensor) -> Tensor:
    """Linear RGB, not clipped."""
    light, u, v = luv[:, 0] * 100, luv[:, 1] * 200 - 100, luv[:, 2] * 200 - 100
    scale = 13 * light + _TINY
    u, v = u / scale + _WHITE[0], v / scale + _WHITE[1]
    y = torch.where(light > 8, ((light.clamp(min=8) + 16) / 116) ** 3, light * (3 / 29) ** 3)
    part = y / (4 * v + _TINY)
    xyz = torch.stack([9 * part * u, y, part * (12 - 3 * u - 20 * v)], 1)
    return _mix(_TO_RGB, xyz.clamp(0, 1.1))


def _mix(matrix: tuple[tuple[float, ...], ...], values: Tensor) -> Tensor:
    """The rows of matrix times the three channels of values (N, 3, ...): (N, rows, ...)."""
    mixed = sent(torch.tensor(matrix), values.device) @ values.flatten(2)
    return mixed.unflatten(2, values.shape[2:])
