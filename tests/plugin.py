"""Third-party methods as a user would write them: a toy dataset and learners that misbehave.

Loaded with `--import tests.plugin`, here and on Ray's workers.
"""

from __future__ import annotations

import inspect
import math
import os
import pickle
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
from raygrid.core.options import Options
from raygrid.core.registry import Card
from raygrid.datasets.base import DATASETS, Dataset, Split
from raygrid.engine.worker import Worker
from raygrid.learners.base import LEARNERS, Learner, Session, Task
from raygrid.nn.recipes import Recipe
from raygrid.nn.trainer import Metrics
from raygrid.protocols import PROTOCOLS, Protocol
from tests.conftest import toy

CARD = Card(paper="none; for tests")


def worker_options() -> Options:
    """The options of the worker among the callers."""
    callers = inspect.stack()
    return next(
        found.options
        for frame in callers
        if isinstance(found := frame.frame.f_locals.get("self"), Worker)
    )


@DATASETS.register("dots")
@dataclass(frozen=True, kw_only=True)
class Dots(Dataset):
    """Four classes of faint patterns in noise, 16 pixels."""

    card = CARD
    classes: ClassVar[int] = 4
    image_size: ClassVar[int] = 16
    train_size: ClassVar[int] = 128
    test_size: ClassVar[int] = 64
    augmentation: ClassVar[str] = "crop"

    def source(self, root: Path) -> str:
        return "toy"

    def load(self, root: Path) -> Split:
        return Split(toy(128, seed=1), toy(64, seed=2))


class Idle:
    """A session that learns nothing."""

    def __init__(self, task: Task, seconds: float) -> None:
        head = nn.Linear(math.prod(task.train.shape), task.train.classes)
        self.model = nn.Sequential(nn.Flatten(), head).to(task.device)
        self.seconds = seconds

    def epoch(self, epoch: int) -> Metrics:
        time.sleep(self.seconds)
        return {"train_loss": 1.0, "train_acc": 0.0, "lr": 0.0}

    def classifier(self) -> nn.Module:
        return self.model

    finish = classifier

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


def eat(hunger: float, log: str) -> None:
    """Run out of memory with less than this part of a GPU, and write down which part it was."""
    if not hunger:
        return
    from raygrid.engine.ray.worker import gpu_share

    if gpu_share() < hunger:
        with Path(log).open("a") as file:
            file.write(f"{gpu_share()}\n")
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `create`")


def lose_device(log: str) -> None:
    """Write down the process's number, then its GPU fails; without a file nothing does."""
    if log:
        with Path(log).open("a") as file:
            file.write(f"{os.getpid()}\n")
        raise RuntimeError("CUDA error: device-side assert triggered\nCompile with ...")


@LEARNERS.register("sleeper")
@dataclass(frozen=True, kw_only=True)
class Sleeper(Learner):
    """Sleeps instead of training."""

    card = CARD
    seconds: float = 0.0  # per epoch
    flag: str = ""  # a file; if it is missing it is written and the process dies
    fails: bool = False
    hunger: float = 0.0  # part of a GPU with less of which it runs out of memory
    log: str = ""  # a file that gets a line each time
    lost: str = ""  # a file that gets the process's number before its GPU fails

    def start(self, task: Task) -> Session:
        eat(self.hunger, self.log)
        if self.fails:
            raise RuntimeError("told to fail")
        lose_device(self.lost)
        if self.flag and not Path(self.flag).exists():
            Path(self.flag).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return Idle(task, self.seconds)


@LEARNERS.register("witness")
@dataclass(frozen=True, kw_only=True)
class Witness(Learner):
    """Writes down the run options of the worker that trains it, and learns nothing."""

    card = CARD
    recipe: ClassVar[Recipe | None] = Recipe(epochs=1)
    file: str = ""

    def start(self, task: Task) -> Session:
        Path(self.file).write_bytes(pickle.dumps(worker_options()))
        return Idle(task, 0.0)


@ATTACKS.register("broken")
@dataclass(frozen=True, kw_only=True)
class Broken(Attack):
    """Fails while it is made."""

    card = CARD
    budget: Budget = Budget("linf", 8 / 255)

    def propose(self, images: Images, context: AttackContext) -> Tensor:
        raise RuntimeError("the attack is broken")


@ATTACKS.register("slow_shift")
@dataclass(frozen=True, kw_only=True)
class SlowShift(Attack):
    """Adds a seeded constant after a pause; `tag` makes different poisons."""

    card = CARD
    budget: Budget = Budget("linf", 8 / 255)
    pause: float = 0.0  # seconds
    tag: int = 0
    hunger: float = 0.0  # see `Sleeper`
    log: str = ""
    lost: str = ""

    def propose(self, images: Images, context: AttackContext) -> Tensor:
        eat(self.hunger, self.log)
        lose_device(self.lost)
        time.sleep(self.pause)
        generator = context.stream.generator("sign", self.tag)
        sign = torch.rand(images.shape, generator=generator).round() * 2 - 1
        return (sign * self.budget.value).expand(len(context.index(images)), *images.shape)


@PROTOCOLS.register("brief")
@dataclass(frozen=True, kw_only=True)
class Brief(Protocol):
    """Two short epochs."""

    card = CARD
    tier: ClassVar[str] = "quick"
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "supervised": Recipe(epochs=2, batch_size=32, schedule="constant"),
        "sleeper": Recipe(epochs=1),
    }
