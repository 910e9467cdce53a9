"""Toy methods whose faults are ordered from outside, and that leave marks of what they did.

Loaded with `--import tests.faulty`. Nothing here changes a result: specs, and so keys, are those of
an undisturbed run. `FAULTS_DIR` is the folder of marks and of orders: a file `<order>-<tag>` is
taken away by the one process that carries it out; a trial with a file `hold-<tag>` waits until
that is gone. `FAULTS_PAUSE` stretches every epoch (s).
"""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from raygrid.attacks.base import ATTACKS, Attack, AttackContext
from raygrid.core.budget import Budget
from raygrid.core.images import Images
from raygrid.learners.base import LEARNERS, Session, Task
from raygrid.learners.supervised import Supervised, SupervisedSession
from raygrid.nn.recipes import Recipe
from raygrid.nn.steps import Batch, Step
from raygrid.nn.trainer import Metrics
from raygrid.protocols import PROTOCOLS, Protocol
from tests.plugin import CARD, Dots

assert Dots.card is CARD
FOLDER, PAUSE, NODE = "FAULTS_DIR", "FAULTS_PAUSE", "FAULTS_NODE"


def mark(event: str, tag: int, **facts: Any) -> None:
    """Append what happened where; a short line is written whole."""
    if FOLDER in os.environ:
        where = {"node": os.environ.get(NODE), "pid": os.getpid(), "at": time.time()}
        line = json.dumps({"event": event, "tag": tag, **facts, **where}) + "\n"
        with (Path(os.environ[FOLDER]) / "marks").open("a") as file:
            file.write(line)


def ordered(order: str, tag: int) -> bool:
    """Whether this process is the one to carry out an order."""
    if FOLDER not in os.environ:
        return False
    try:
        (Path(os.environ[FOLDER]) / f"{order}-{tag}").unlink()
    except FileNotFoundError:
        return False
    mark(order, tag)
    return True


def held(tag: int) -> bool:
    return FOLDER in os.environ and (Path(os.environ[FOLDER]) / f"hold-{tag}").exists()


def pause() -> None:
    time.sleep(float(os.environ.get(PAUSE, 0)))


def exhaust() -> None:
    """Take memory until there is no more: what the process may have is bounded meanwhile."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    most = pages * resource.getpagesize() + 2**28
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    taken = []
    try:
        while True:
            taken.append(bytearray(2**24))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


class PacedSession(SupervisedSession):
    """Supervised training with a pause and perhaps a fault in every epoch."""

    def __init__(self, task: Task, tag: int, diverges: bool) -> None:
        super().__init__(task)
        self.tag, self.diverges = tag, diverges

    def step(self, batch: Batch) -> Step:
        made = super().step(batch)
        if self.diverges and batch.epoch == 2:
            made.loss = made.loss * torch.nan
        return made

    def epoch(self, epoch: int) -> Metrics:
        mark("epoch", self.tag, epoch=epoch)
        pause()
        while held(self.tag):
            time.sleep(0.1)
        if ordered("hang", self.tag):
            time.sleep(3600)
        if ordered("exhaust", self.tag):
            exhaust()
        if ordered("kill", self.tag):
            os.kill(os.getpid(), signal.SIGKILL)
        if ordered("memory", self.tag):
            raise torch.OutOfMemoryError("out of memory, as told")
        return super().epoch(epoch)

    def finish(self) -> nn.Module:
        mark("end", self.tag)
        return super().finish()


@LEARNERS.register("paced")
@dataclass(frozen=True, kw_only=True)
class Paced(Supervised):
    """Supervised learning at a walking pace; `tag` names the trial."""

    card = CARD
    tag: int = 0
    diverges: bool = False  # in the third epoch

    def start(self, task: Task) -> Session:
        return PacedSession(task, self.tag, self.diverges)


@ATTACKS.register("paced_shift")
@dataclass(frozen=True, kw_only=True)
class PacedShift(Attack):
    """Adds a seeded sign pattern after four pauses; `tag` makes different poisons."""

    card = CARD
    budget: Budget = Budget("linf", 8 / 255)
    tag: int = 0

    def propose(self, images: Images, context: AttackContext) -> Tensor:
        mark("make", self.tag)
        for _ in range(4):
            pause()
        sign = torch.rand(images.shape, generator=context.stream.generator("sign", self.tag))
        delta = (sign.round() * 2 - 1) * self.budget.value
        mark("made", self.tag)
        return delta.expand(len(context.index(images)), *images.shape)


@PROTOCOLS.register("paces")
@dataclass(frozen=True, kw_only=True)
class Paces(Protocol):
    """Six epochs."""

    card = CARD
    tier: ClassVar[str] = "quick"
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "paced": Recipe(epochs=6, batch_size=32, schedule="constant", lr=0.05),
    }
