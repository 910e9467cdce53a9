"""BYOL: predict the projection that a slow copy of the network makes of the other view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from raygrid.core.literals import Scalar
from raygrid.core.registry import Card, require
from raygrid.learners.base import LEARNERS
from raygrid.learners.common.two_views import TwoViews

if TYPE_CHECKING:
    from raygrid.architectures.networks.network import Network
    from raygrid.nn.contrastive.base import Framework


@LEARNERS.register("byol")
@dataclass(frozen=True, kw_only=True)
class Byol(TwoViews):
    """Negative cosine to the target's projections, both directions; the online branch is kept."""

    card = Card(
        paper="Grill et al. 2020 (BYOL); settings of Liu et al., appendix A.3",
        code="kaiwenzha/contrastive-poisoning@628838c",
        published={
            "cifar10/clean/standard/resnet18/byol/tp/0": 0.9200,
            "cifar100/clean/standard/resnet18/byol/tp/0": 0.6503,
        },
        notes="that code moves the target twice a step, 0.999 each time, and uses the same views "
        "for both branches (no blur, no solarizing). It moves once before each direction of the "
        "loss, as here from version 2 on",
    )
    tiny: ClassVar[Mapping[str, Scalar]] = {"hidden": 32, "output": 16, "momentum": 0.9}

    hidden: int = 4096  # hidden layer of both heads
    output: int = 256  # width of projections and predictions
    momentum: float = 0.999  # of the target, for each of its updates
    ema_updates: int = 2  # updates of the target in each step, the last before direction two
    factor: float = 1.0  # of the loss; 4 is the form of the AUE code
    joint: bool = False  # embed both views as one batch with its own statistics, as the AUE code

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.hidden >= 1, f"hidden is {self.hidden}, allowed from 1")
        require(self.output >= 1, f"output is {self.output}, allowed from 1")
        require(0 <= self.momentum <= 1, f"momentum is {self.momentum}, allowed are 0 to 1")
        require(self.ema_updates >= 1, f"ema_updates is {self.ema_updates}, allowed from 1")
        require(self.factor > 0, f"factor is {self.factor}, allowed: above 0")

    def framework(self, network: Network, precision: str) -> Framework:
        from raygrid.nn.contrastive.byol import ByolLoss, byol_heads

        heads = byol_heads(network, precision, self.hidden, self.output)
        return ByolLoss(*heads, self.momentum, self.ema_updates, self.factor, self.joint)
