"""Supervised learning that notes when it begins and ends, loaded with `--import`.

Rows tell of a trial that was run to its end only if its row was written. A trial whose worker came
to the end unheard, and that begins anew, leaves one row all the same; its marks tell.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import nn

from raygrid.core.registry import Card
from raygrid.learners.base import LEARNERS, Session, Task
from raygrid.learners.supervised import Supervised, SupervisedSession
from raygrid.nn.recipes import Recipe
from raygrid.nn.trainer import Metrics
from raygrid.protocols.quick import Quick

MARKS = "SOAK_MARKS"
"""The variable that names the file of marks."""


class MarkedSession(SupervisedSession):
    """Supervised training that marks each epoch's beginning and its own end."""

    def __init__(self, task: Task, trial: int) -> None:
        super().__init__(task)
        self.trial = trial

    def epoch(self, epoch: int) -> Metrics:
        self._mark("epoch", epoch)
        return super().epoch(epoch)

    def finish(self) -> nn.Module:
        made = super().finish()
        self._mark("end", self.task.recipe.epochs)
        return made

    def _mark(self, event: str, epoch: int) -> None:
        """Add a line, short enough to be written whole beside other processes."""
        facts = {"trial": self.trial, "event": event, "epoch": epoch, "at": time.time()}
        with Path(os.environ[MARKS]).open("a", encoding="utf-8") as file:
            file.write(json.dumps({**facts, "pid": os.getpid()}) + "\n")


@LEARNERS.register("marked")
@dataclass(frozen=True, kw_only=True)
class Marked(Supervised):
    """Supervised learning with marks; `trial` is the trial's number, from 1."""

    card = Card(paper="none; for the soak test")
    recipe: ClassVar[Recipe | None] = Quick.recipes["supervised"]
    trial: int = 0

    def start(self, task: Task) -> Session:
        return MarkedSession(task, self.trial)
