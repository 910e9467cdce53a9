"""Frameworks with one encoder for both views: SimCLR, SupCon, alignment and uniformity."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raygrid.core.lazy import functional, torch
from raygrid.nn.contrastive.base import Branch, Framework
from raygrid.nn.contrastive.losses import (
    LossScale,
    align_uniform,
    loss_factor,
    nt_xent_of_pairs,
    sup_con,
)

if TYPE_CHECKING:
    from torch import Tensor


class _Pairs(Framework):
    """Both views go through the encoder: as one batch, or each as a batch of its own."""

    joint = True

    def project(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Unit projections float32 (n, dim) of both views."""
        if not self.joint:
            return self.embed(a), self.embed(b)
        z = self.embed(torch.cat([a, b]))
        return z[: len(a)], z[len(a) :]

    def embed(self, x: Tensor) -> Tensor:
        """Unit projections float32 (n, dim)."""
        return functional.normalize(self.branch(x), dim=1)


class SimClrLoss(_Pairs):
    """NT-Xent of Chen et al. 2020 over both directions, times `loss_factor`.

    joint: whether both views are one batch for the encoder's batch statistics, as in most codes.
    """

    def __init__(
        self, branch: Branch, temperature: float, scale: LossScale, joint: bool = True
    ) -> None:
        super().__init__(branch)
        self.joint = joint
        self.temperature = temperature
        self.factor = loss_factor(temperature, scale)

    def forward(
        self, a: Tensor, b: Tensor, y: Tensor, move: bool = True, dual: bool = False
    ) -> Tensor:
        return self.factor * nt_xent_of_pairs(*self.project(a, b), self.temperature)


class SupClLoss(_Pairs):
    """SupCon over both views, times `loss_factor`: all images of a class are positives."""

    def __init__(self, branch: Branch, temperature: float, scale: LossScale) -> None:
        super().__init__(branch)
        self.temperature = temperature
        self.factor = loss_factor(temperature, scale)

    def forward(
        self, a: Tensor, b: Tensor, y: Tensor, move: bool = True, dual: bool = False
    ) -> Tensor:
        z = torch.cat(self.project(a, b))
        return self.factor * sup_con(z, y.repeat(2), self.temperature)


class AlignUniform(_Pairs):
    """Weighted alignment and uniformity."""

    def __init__(self, branch: Branch, align: float = 1.0, uniform: float = 1.0) -> None:
        super().__init__(branch)
        self.align = align
        self.uniform = uniform

    def forward(
        self, a: Tensor, b: Tensor, y: Tensor, move: bool = True, dual: bool = False
    ) -> Tensor:
        return align_uniform(*self.project(a, b), self.align, self.uniform)
