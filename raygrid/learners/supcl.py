"""SupCL: supervised contrastive learning, agree with all images of the same class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from raygrid.core.registry import Card
from raygrid.learners.base import LEARNERS
from raygrid.learners.simclr import SimClr

if TYPE_CHECKING:
    from raygrid.architectures.networks.network import Network
    from raygrid.nn.contrastive.base import Framework


@LEARNERS.register("supcl")
@dataclass(frozen=True, kw_only=True)
class SupCl(SimClr):
    """SimCLR with the SupCon loss: its views and head, labels decide the positives."""

    card = Card(
        paper="Khosla et al. 2020 (SupCon); settings of Liu et al., appendix A.3",
        code="HobbitLong/SupContrast@66a8fe5",
        published={
            "cifar10/clean/standard/resnet18/supcl/tp/0": 0.9475,
            "cifar100/clean/standard/resnet18/supcl/tp/0": 0.7317,
        },
        notes="probe rate 1 as in Liu et al.; the SupContrast code recommends 5",
    )
    labels: ClassVar[bool] = True

    def framework(self, network: Network, precision: str) -> Framework:
        from raygrid.nn.contrastive.pairs import SupClLoss

        branch = self.branch(network, precision)
        return SupClLoss(branch, self.temperature, self.loss_scale)
