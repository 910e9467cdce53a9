"""MoCo v2: tell the key of the other view from a queue of keys of other images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from raygrid.attacks.base import Attack
from raygrid.core.images import count_at
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card, Combination, require
from raygrid.learners.base import LEARNERS, Session, Task
from raygrid.learners.common.two_views import TwoViews
from raygrid.nn.contrastive.losses import LossScale
from raygrid.protocols import Protocol

if TYPE_CHECKING:
    from raygrid.architectures.networks.network import Network
    from raygrid.nn.contrastive.base import Framework


@LEARNERS.register("moco")
@dataclass(frozen=True, kw_only=True)
class Moco(TwoViews):
    """InfoNCE in one direction: view 1 is the query, view 2 the key; the query branch is kept."""

    card = Card(
        paper="He et al. 2020, Chen et al. 2020 (MoCo v2); settings of Liu et al., appendix A.3",
        code="kaiwenzha/contrastive-poisoning@628838c",
        published={
            "cifar10/clean/standard/resnet18/moco/tp/0": 0.9143,
            "cifar100/clean/standard/resnet18/moco/tp/0": 0.6446,
        },
        notes="keys are not shuffled: on one device that changes no batch statistics. Where a "
        "batch reaches over the end of the queue the rest of its keys is dropped (lightly's "
        "memory bank), where that code goes on at the beginning",
    )
    tiny: ClassVar[Mapping[str, Scalar]] = {"hidden": 32, "output": 16, "queue": 48}

    temperature: float = 0.2
    loss_scale: LossScale = "base007"
    hidden: int = 512  # width of the projection head's hidden layer
    output: int = 128  # width of the projections
    momentum: float = 0.99  # of the key branch
    queue: int = 4096  # keys; a multiple of the batch size

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.temperature > 0, f"temperature is {self.temperature}, allowed: above 0")
        require(self.hidden >= 1, f"hidden is {self.hidden}, allowed from 1")
        require(self.output >= 1, f"output is {self.output}, allowed from 1")
        require(0 <= self.momentum <= 1, f"momentum is {self.momentum}, allowed are 0 to 1")
        require(self.queue >= 1, f"queue is {self.queue}, allowed from 1")

    def start(self, task: Task) -> Session:
        size = min(task.recipe.batch_size, len(task.train))
        require(
            self.queue % size == 0,
            f"queue is {self.queue}, allowed are multiples of the batch size {size}",
        )
        return super().start(task)

    def skip(self, combination: Combination) -> str | None:
        """Said in the plan already: a queue that batches do not fill evenly.

        Where there are fewer images than a batch has, all of them are one.
        """
        assert isinstance(combination.protocol, Protocol)
        assert isinstance(combination.attack, Attack)
        recipe = combination.protocol.recipe(
            self.id, combination.dataset.id, combination.image_size
        )
        images = combination.train_size
        if combination.attack.withholds:
            images -= count_at(combination.poison_ratio, images)
        size = recipe.batch_size if combination.targets else max(1, min(recipe.batch_size, images))
        if self.queue % size:
            return f"queue is {self.queue}, allowed are multiples of the batch size {size}"
        return super().skip(combination)

    def framework(self, network: Network, precision: str) -> Framework:
        from raygrid.nn.contrastive.base import with_mlp
        from raygrid.nn.contrastive.moco import MocoLoss

        branch = with_mlp(network, precision, self.hidden, self.output)
        queue = (self.queue, self.output)
        return MocoLoss(branch, queue, self.momentum, self.temperature, self.loss_scale)
