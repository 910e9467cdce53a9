"""Color operations on a batch, each image with its own strength; all differentiable.

Images are float (N, 3, H, W) in [0, 1] and stay there. They agree with torchvision's functional
operations on float tensors. `factor`, `shift` and `sigma` are float (N,).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raygrid.core.lazy import functional, torch

if TYPE_CHECKING:
    from torch import Tensor

LUMA = (0.2989, 0.587, 0.114)


def luma(x: Tensor) -> Tensor:
    """Luminance (N, 1, H, W)."""
    red, green, blue = x.split(1, 1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def grayscale(x: Tensor) -> Tensor:
    """The luminance in all channels."""
    return luma(x).expand_as(x)


def _blend(x: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    weight = factor.to(x.dtype).view(-1, 1, 1, 1)
    return torch.lerp(other.expand_as(x), x, weight).clamp(0, 1)


def brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Blend with black."""
    return (factor.view(-1, 1, 1, 1) * x).clamp(0, 1)


def contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Blend with the mean luminance of the image."""
    return _blend(x, luma(x).mean((2, 3), keepdim=True), factor)


def saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Blend with the grayscale image."""
    return _blend(x, luma(x), factor)


def hue(x: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue of HSV by `shift` of a full circle, in [-0.5, 0.5].

    Value v and chroma c stay. A channel whose own sector is n (R 0, G 2, B 4) and whose distance
    from the hue on the circle of six sectors is d gets v - c * (d - 1), the bracket clipped to
    [0, 1]; d = 3 - ||h - n| - 3| for h in [0, 6). Gray pixels have no hue: their chroma 0 is
    raised before dividing, which changes nothing and keeps gradients finite. Products with masks
    stand for `where`, which is several times slower on a CPU.
    """
    red, green, blue = x.unbind(1)
    value, lowest = x.amax(1), x.amin(1)
    chroma = value - lowest
    is_red = (value == red).to(x.dtype)
    is_green = (value == green).to(x.dtype) * (1 - is_red)
    is_blue = 1 - is_red - is_green
    ahead = is_red * (green - blue)
    ahead = torch.addcmul(ahead, is_green, blue - red)
    ahead = torch.addcmul(ahead, is_blue, red - green)
    start = torch.add(6 * shift.view(-1, 1, 1) + 2 * is_green, is_blue, alpha=4)
    sector = torch.addcdiv(start, ahead, chroma.clamp_min(1e-12))
    sector = sector - 6 * (sector / 6).floor()
    channels = []
    for own in (0.0, 2.0, 4.0):
        share = (2 - ((sector - own).abs() - 3).abs()).clamp(0, 1)
        channels.append(torch.addcmul(value, chroma, share, value=-1))
    return torch.stack(channels, 1)


def blur(x: Tensor, sigma: Tensor, kernel: int) -> Tensor:
    """Gaussian blur with an odd `kernel` in pixels, edges reflected."""
    n, channels, height, width = x.shape
    reach = kernel // 2
    at = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    weight = torch.softmax(-0.5 * (at / sigma.to(x.dtype)[:, None]) ** 2, 1)
    weight = weight.repeat_interleave(channels, 0)
    flat = functional.pad(x, (reach,) * 4, mode="reflect").view(1, n * channels, *_padded(x, reach))
    with torch.autocast(x.device.type, enabled=False):
        flat = functional.conv2d(flat, weight.view(-1, 1, kernel, 1), groups=n * channels)
        flat = functional.conv2d(flat, weight.view(-1, 1, 1, kernel), groups=n * channels)
    return flat.view(n, channels, height, width)


def _padded(x: Tensor, reach: int) -> tuple[int, int]:
    return x.shape[2] + 2 * reach, x.shape[3] + 2 * reach
