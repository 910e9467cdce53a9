"""SimSiam: predict the projection of the other view, with a stopped gradient."""

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


@LEARNERS.register("simsiam")
@dataclass(frozen=True, kw_only=True)
class SimSiam(TwoViews):
    """Negative cosine, both directions; the projector has two layers, the last without affine."""

    card = Card(
        paper="Chen and He 2021 (SimSiam); settings of Liu et al., appendix A.3",
        code="kaiwenzha/contrastive-poisoning@628838c",
        published={
            "cifar10/clean/standard/resnet18/simsiam/tp/0": 0.9059,
            "cifar100/clean/standard/resnet18/simsiam/tp/0": 0.6245,
        },
        notes="prone to collapse at rate 0.5: see `feature_spread` and `collapsed` in the history",
    )
    tiny: ClassVar[Mapping[str, Scalar]] = {"hidden": 32, "predictor": 16}

    hidden: int = 2048  # width of the projector, hidden and out
    predictor: int = 512  # hidden layer of the predictor
    affine: bool = False  # whether the projector's last batch norm scales and shifts

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.hidden >= 1, f"hidden is {self.hidden}, allowed from 1")
        require(self.predictor >= 1, f"predictor is {self.predictor}, allowed from 1")

    def framework(self, network: Network, precision: str) -> Framework:
        from raygrid.nn.contrastive.simsiam import SimSiamLoss, simsiam_heads

        sizes = self.hidden, self.predictor
        heads = simsiam_heads(network, precision, *sizes, self.affine)
        return SimSiamLoss(*heads)
