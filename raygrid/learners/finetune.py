"""Transfer learning end to end: the pre-trained network with a new head, all of it trained."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

from raygrid.core.lazy import nn
from raygrid.core.registry import Card, Combination, require
from raygrid.core.seeds import forked
from raygrid.learners.base import LEARNERS, NEEDS_PRETRAINING, Learner, Session, Task
from raygrid.learners.supervised import SupervisedSession


@LEARNERS.register("finetune")
@dataclass(frozen=True, kw_only=True)
class Finetune(Learner):
    """Starts from the protocol's pre-trained extractor and trains the whole network."""

    card = Card(
        paper="Schwarzschild et al. 2021 (Just How Toxic is Data Poisoning?), section 3",
        code="aks2203/poisoning-benchmark, first release of June 2020",
    )
    pretrained: ClassVar[bool] = True

    def start(self, task: Task) -> Session:
        require(task.extractor is not None, f"{self.id} was given no pre-trained extractor")
        assert task.extractor is not None
        network = copy.deepcopy(task.extractor).requires_grad_(True)
        with forked(task.streams["init"].seed("head")):
            network.head = nn.Linear(network.width, task.train.classes).to(task.device)
        return SupervisedSession(task, network)

    def skip(self, combination: Combination) -> str | None:
        return None if combination.pretrains else NEEDS_PRETRAINING.format(self.id)
