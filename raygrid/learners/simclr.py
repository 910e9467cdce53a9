"""SimCLR: agree with the other view of the same image, disagree with all other images."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from raygrid import contrastive
from raygrid.architectures.base import Network
from raygrid.contrastive.base import Branch, Framework
from raygrid.contrastive.losses import LossScale, loss_factor
from raygrid.learners.base import LEARNERS
from raygrid.learners.two_views import TwoViews
from raygrid.registry import Card, require


@LEARNERS.register("simclr")
@dataclass(frozen=True, kw_only=True)
class SimClr(TwoViews):
    """NT-Xent over two views of each image of the batch."""

    card = Card(
        paper="Chen et al. 2020 (SimCLR); settings of Liu et al., appendix A.3",
        code="kaiwenzha/contrastive-poisoning@628838c",
        published={
            "cifar10/clean/standard/resnet18/simclr/tp/0": 0.9118,
            "cifar100/clean/standard/resnet18/simclr/tp/0": 0.6352,
        },
        notes="loss times T / 0.07 and a head without batch norm as in that code; the AUE code "
        "has neither, see the protocol aue",
    )

    temperature: float = 0.5
    loss_scale: LossScale = "base007"
    hidden: int = 512  # width of the projection head's hidden layer
    output: int = 128  # width of the projections
    batch_norm: bool = False  # in the projection head

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.temperature > 0, f"temperature is {self.temperature}, allowed: above 0")
        require(self.hidden >= 1, f"hidden is {self.hidden}, allowed from 1")
        require(self.output >= 1, f"output is {self.output}, allowed from 1")

    def framework(self, network: Network, precision: str) -> Framework:
        branch = Branch(network, self.head(network.width), precision)
        factor = loss_factor(self.temperature, self.loss_scale)
        return contrastive.SimClr(branch, self.temperature, factor)

    def head(self, width: int) -> nn.Module:
        """The projection head on features (n, width)."""
        from lightly.models.modules import SimCLRProjectionHead

        return SimCLRProjectionHead(width, self.hidden, self.output, batch_norm=self.batch_norm)
