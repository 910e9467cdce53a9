"""SimSiam: predict the projection of the other view, with a stopped gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raygrid.core.lazy import nn
from raygrid.nn.contrastive.base import Branch, Framework
from raygrid.nn.contrastive.losses import cosine_loss

if TYPE_CHECKING:
    from torch import Tensor

    from raygrid.architectures.networks.network import Network


def simsiam_heads(
    network: Network,
    precision: str,
    hidden: int = 2048,
    predictor: int = 512,
    affine: bool = False,
) -> tuple[Branch, nn.Module]:
    """The encoder with SimSiam's projector of two layers, and its predictor.

    affine: whether the projector's last batch norm scales and shifts.
    """
    from lightly.models.modules import SimSiamPredictionHead
    from lightly.models.modules.heads import ProjectionHead

    first = (network.width, hidden, nn.BatchNorm1d(hidden), nn.ReLU())
    last = (hidden, hidden, nn.BatchNorm1d(hidden, affine=affine), None)
    branch = Branch(network, ProjectionHead([first, last]), precision)
    return branch, SimSiamPredictionHead(hidden, predictor, hidden)


class SimSiamLoss(Framework):
    """Chen and He 2021: half the sum of -cos over both directions."""

    def __init__(self, branch: Branch, predictor: nn.Module) -> None:
        from lightly.loss import NegativeCosineSimilarity

        super().__init__(branch)
        self.predictor = predictor
        self.criterion = NegativeCosineSimilarity()

    def forward(
        self, a: Tensor, b: Tensor, y: Tensor, move: bool = True, dual: bool = False
    ) -> Tensor:
        za, zb = self.branch(a), self.branch(b)
        p = self.predictor(za), self.predictor(zb)
        z = (za, zb) if dual else (za.detach(), zb.detach())
        return cosine_loss(self.criterion, p, z)
