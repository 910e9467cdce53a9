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

    Before each step the target follows the online branch `updates` times with `momentum`.
    """

    def __init__(
        self,
        branch: Branch,
        predictor: nn.Module,
        momentum: float,
        updates: int = 1,
        factor: float = 1.0,
    ) -> None:
        from lightly.loss import NegativeCosineSimilarity

        super().__init__(branch)
        self.predictor = predictor
        self.target = moving_copy(branch)
        self.criterion = NegativeCosineSimilarity()
        self.momentum = momentum
        self.updates = updates
        self.factor = factor

    def forward(
        self, a: Tensor, b: Tensor, y: Tensor, move: bool = True, dual: bool = False
    ) -> Tensor:
        if move:
            for _ in range(self.updates):
                follow(self.target, self.branch, self.momentum)
        p = self.predictor(self.branch(a)), self.predictor(self.branch(b))
        with nullcontext() if dual else torch.no_grad():
            z = self.target(a), self.target(b)
        return self.factor * cosine_loss(self.criterion, p, z)
