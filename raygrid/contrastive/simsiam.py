"""SimSiam: predict the projection of the other view, with a stopped gradient."""

from __future__ import annotations

from torch import Tensor, nn

from raygrid.contrastive.base import Branch, Framework
from raygrid.contrastive.losses import cosine_loss


class SimSiam(Framework):
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
