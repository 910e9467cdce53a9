"""Neural tangent kernels of two infinitely wide networks, and what they predict in training.

All in float64. Images are (n, C, H, W) in [0, 1], not centered. Weights have variance
`WEIGHT_VARIANCE`, biases `BIAS_VARIANCE`, in the NTK parameterization.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from raygrid.core.lazy import nn, torch

if TYPE_CHECKING:
    from torch import Tensor

WEIGHT_VARIANCE, BIAS_VARIANCE = 1.76, 0.18
RIDGE = 1e-4  # of the mean of the diagonal

Kernel: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"
"""(a, C, H, W), (b, C, H, W) -> NTK (a, b), differentiable in both."""


def cnn(xa: Tensor, xb: Tensor) -> Tensor:
    """Two 5x5 convolutions of stride 2 with ReLU, then three dense layers without.

    Because of stride and flattening only covariances at equal places matter: k and t are the
    covariance and tangent maps (a, b, h, w) of pairs, qa and qb the variances of each image.
    """
    k = torch.einsum("achw,bchw->abhw", xa, xb) / xa.shape[1]
    qa, qb = xa.square().mean(1), xb.square().mean(1)
    t = torch.zeros_like(k)
    for _ in range(2):
        k, t, qa, qb = _dense(_window(k), _window(t), _window(qa), _window(qb))
        k, t, qa, qb = _relu(k, t, qa, qb)
    k, t = k.mean((2, 3)), t.mean((2, 3))
    for _ in range(3):
        k = WEIGHT_VARIANCE * k + BIAS_VARIANCE
        t = k + WEIGHT_VARIANCE * t
    return t


def fnn(xa: Tensor, xb: Tensor) -> Tensor:
    """Five dense layers with erf, no output layer."""
    xa, xb = xa.flatten(1), xb.flatten(1)
    k, t = xa @ xb.T / xa.shape[1], torch.zeros(len(xa), len(xb)).to(xa)
    qa, qb = xa.square().mean(1), xb.square().mean(1)
    for _ in range(5):
        k, t, qa, qb = _dense(k, t, qa, qb)
        k, t, qa, qb = _erf(k, t, qa, qb)
    return t


KERNELS: dict[str, Kernel] = {"cnn": cnn, "fnn": fnn}

Maps: TypeAlias = "tuple[Tensor, Tensor, Tensor, Tensor]"


def _dense(k: Tensor, t: Tensor, qa: Tensor, qb: Tensor) -> Maps:
    k = WEIGHT_VARIANCE * k + BIAS_VARIANCE
    return (
        k,
        k + WEIGHT_VARIANCE * t,
        WEIGHT_VARIANCE * qa + BIAS_VARIANCE,
        WEIGHT_VARIANCE * qb + BIAS_VARIANCE,
    )


def _window(maps: Tensor) -> Tensor:
    """Mean over 5x5 windows of stride 2; zeros outside, always divided by 25.

    Padding is TensorFlow's SAME: the smaller half before, the larger after.
    """
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    sides = [max((math.ceil(s / 2) - 1) * 2 + 5 - s, 0) for s in maps.shape[-2:]]
    (top, bottom), (left, right) = [(total // 2, total - total // 2) for total in sides]
    out = nn.functional.avg_pool2d(nn.functional.pad(flat, (left, right, top, bottom)), 5, 2)
    return out.view(*maps.shape[:-2], *out.shape[-2:])


def _relu(k: Tensor, t: Tensor, qa: Tensor, qb: Tensor) -> Maps:
    scale = (qa[:, None] * qb[None]).sqrt()
    cosine = (k / scale).clamp(-1 + 1e-7, 1 - 1e-7)  # arccos has no finite slope at the ends
    angle = cosine.arccos()
    t = t * (math.pi - angle) / (2 * math.pi)
    k = scale * (angle.sin() + (math.pi - angle) * cosine) / (2 * math.pi)
    return k, t, qa / 2, qb / 2


def _erf(k: Tensor, t: Tensor, qa: Tensor, qb: Tensor) -> Maps:
    product = (1 + 2 * qa[:, None]) * (1 + 2 * qb[None])
    t = t * (4 / math.pi) / (product - 4 * k.square()).sqrt()
    k = (2 / math.pi) * (2 * k / product.sqrt()).asin()
    qa, qb = ((2 / math.pi) * (2 * q / (1 + 2 * q)).asin() for q in (qa, qb))
    return k, t, qa, qb


class GradientFlow:
    """Gradient flow to time t on a training block: predictions are K(v, block) @ weights.

    gram: K(block, block) (b, b). targets: one-hot labels (b, classes). The flow descends the mean
    squared error over all b * classes targets, so time is divided by that number.
    """

    def __init__(self, gram: Tensor, targets: Tensor, time: float) -> None:
        self.targets = targets
        self.rate = time / targets.numel()
        ridge = RIDGE * gram.diagonal().mean()
        self.values, self.vectors = torch.linalg.eigh(gram + ridge * torch.eye(len(gram)).to(gram))
        filtered = -torch.expm1(-self.values * self.rate) / self.values
        self.weights = self.vectors @ (filtered[:, None] * (self.vectors.T @ targets))

    def backward(self, gradient: Tensor) -> Tensor:
        """The gradient in the gram matrix, (b, b), symmetric, from the one in `weights`.

        The derivative of a matrix function in the eigenbasis (Daleckii and Krein); unlike that of
        eigh it is finite for equal eigenvalues.
        """
        e, decay = self.values, torch.exp(-self.values * self.rate)
        filtered = -torch.expm1(-e * self.rate) / e
        slope = (self.rate * decay - filtered) / e
        gap = e[:, None] - e[None]
        close = gap.abs() <= 1e-7 * e.abs().max()
        ratio = (filtered[:, None] - filtered[None]) / torch.where(close, torch.ones_like(gap), gap)
        quotient = torch.where(close, (slope[:, None] + slope[None]) / 2, ratio)
        inner = self.vectors.T @ gradient @ self.targets.T @ self.vectors
        out = self.vectors @ (quotient * (inner + inner.T) / 2) @ self.vectors.T
        out.diagonal().add_(RIDGE * out.trace() / len(out))
        return out
