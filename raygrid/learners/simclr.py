"""SimCLR: agree with the other view of the same image, disagree with all other images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from raygrid.core.literals import Scalar
from raygrid.core.registry import Card, require
from raygrid.learners.base import LEARNERS
from raygrid.learners.common.two_views import TwoViews
from raygrid.nn.contrastive.losses import LossScale

if TYPE_CHECKING:
    from raygrid.architectures.networks.network import Network
    from raygrid.nn.contrastive.base import Branch, Framework


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
    tiny: ClassVar[Mapping[str, Scalar]] = {"hidden": 32, "output": 16}

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
        from raygrid.nn.contrastive.pairs import SimClrLoss

        branch = self.branch(network, precision)
        return SimClrLoss(branch, self.temperature, self.loss_scale)

    def branch(self, network: Network, precision: str) -> Branch:
        """The encoder with its projection head."""
        from raygrid.nn.contrastive.base import with_mlp

        return with_mlp(network, precision, self.hidden, self.output, self.batch_norm)
