"""BYOL: predict the projection of the other view by a slow copy of the network."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from raygrid.core.lazy import nn, torch
from raygrid.nn.contrastive.base import Branch, Framework, follow, moving_copy
from raygrid.nn.contrastive.losses import cosine_loss

if TYPE_CHECKING:
    from torch import Tensor

    from raygrid.architectures.networks.network import Network


def byol_heads(
    network: Network, precision: str, hidden: int = 4096, output: int = 256
) -> tuple[Branch, nn.Module]:
    """The encoder with BYOL's projector, and its predictor; projections have `output` values."""
    from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead

    projector = BYOLProjectionHead(network.width, hidden, output)
    predictor = BYOLPredictionHead(output, hidden, output)
    return Branch(network, projector, precision), predictor


class ByolLoss(Framework):
    """Grill et al. 2020: `factor` times half the sum of -cos over both directions.

    Before each step the target follows the online branch `updates` times with `momentum`, the last
    time of several between the two directions: in the first (a predicts b) it has moved once less.
    joint: both views are embedded as one batch, so that batch norms see them together, by a target
    that has moved before.
    """

    def __init__(
        self,
        branch: Branch,
        predictor: nn.Module,
        momentum: float,
        updates: int = 1,
        factor: float = 1.0,
        joint: bool = False,
    ) -> None:
        from lightly.loss import NegativeCosineSimilarity

        super().__init__(branch)
        self.predictor = predictor
        self.target = moving_copy(branch)
        self.criterion = NegativeCosineSimilarity()
        self.momentum = momentum
        self.updates = updates
        self.factor = factor
        self.joint = joint

    def forward(
        self, a: Tensor, b: Tensor, y: Tensor, move: bool = True, dual: bool = False
    ) -> Tensor:
        if self.joint:
            return self._together(torch.cat([a, b]), move, dual)
        p = self.predictor(self.branch(a)), self.predictor(self.branch(b))
        between = min(1, self.updates - 1)
        self._follow(self.updates - between if move else 0)
        with nullcontext() if dual else torch.no_grad():
            of_b = self.target(b)
            self._follow(between if move else 0)
            of_a = self.target(a)
        return self.factor * cosine_loss(self.criterion, p, (of_a, of_b))

    def _together(self, both: Tensor, move: bool, dual: bool) -> Tensor:
        """The loss of two views that lie one after the other in a batch."""
        self._follow(self.updates if move else 0)
        p = self.predictor(self.branch(both)).chunk(2)
        with nullcontext() if dual else torch.no_grad():
            z = self.target(both).chunk(2)
        return self.factor * cosine_loss(self.criterion, (p[0], p[1]), (z[0], z[1]))

    def _follow(self, times: int) -> None:
        for _ in range(times):
            follow(self.target, self.branch, self.momentum)
