"""Methods that only wait, to measure the engine: dataset `blank`, learner and protocol `idle`."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from raygrid.core.images import Images
from raygrid.core.registry import Card
from raygrid.datasets.base import DATASETS, Dataset, Facts, Split
from raygrid.learners.base import LEARNERS, Learner, Session, Task
from raygrid.nn.recipes import Recipe
from raygrid.nn.trainer import Metrics
from raygrid.protocols import PROTOCOLS, Protocol

CARD = Card(paper="none; for benchmarks of the engine")


def private_mb() -> float:
    """Anonymous memory of this process in MB: all copies, nothing of a shared object store.

    (A page of the store that just one process has touched so far counts as `Private`.)
    """
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous")) / 1024


@DATASETS.register("blank")
@dataclass(frozen=True, kw_only=True)
class Blank(Dataset):
    """Random 32-pixel images."""

    card = CARD
    classes: ClassVar[int] = 10
    image_size: ClassVar[int] = 32
    train_size: ClassVar[int] = 100
    test_size: ClassVar[int] = 20
    augmentation: ClassVar[str] = "crop"

    images: int = 100  # of the training set

    def describe(self, root: Path) -> Facts:
        return Facts(10, 32, self.images, 20)

    def source(self, root: Path) -> str:
        return "random"

    def load(self, root: Path) -> Split:
        return Split(self._part(self.images, 0), self._part(20, 1))

    def _part(self, n: int, seed: int) -> Images:
        generator = torch.Generator().manual_seed(seed)
        pixels = torch.randint(256, (n, 3, 32, 32), generator=generator).to(torch.uint8)
        return Images(pixels, torch.arange(n) % 10, 10)


class Waiting:
    """Looks at every image once, then sleeps."""

    def __init__(self, task: Task, seconds: float, before: float | None) -> None:
        self.task, self.seconds, self.before = task, seconds, before
        self.model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, task.train.classes))

    def epoch(self, epoch: int) -> Metrics:
        total = sum(int(part.sum()) for part in self.task.train.pixels.split(50))
        time.sleep(self.seconds)
        return {
            "train_loss": float(total > 0),
            "train_acc": 0.0,
            "grown_mb": self.grown_mb(),
        }

    def grown_mb(self) -> float:
        return 0.0 if self.before is None else private_mb() - self.before

    def classifier(self) -> nn.Module:
        return self.model

    finish = classifier

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@LEARNERS.register("idle")
@dataclass(frozen=True, kw_only=True)
class Idle(Learner):
    """Sleeps instead of training; `watch` has it report the private memory that its trial took.

    Reading that takes some 10 ms each time.
    """

    card = CARD
    seconds: float = 1.0  # per epoch
    watch: bool = False

    @functools.cached_property
    def before(self) -> float | None:
        """MB of this process when the trial was named, before its data were there."""
        return private_mb() if self.watch else None

    def __post_init__(self) -> None:
        _ = self.before

    def start(self, task: Task) -> Session:
        return Waiting(task, self.seconds, self.before)


@PROTOCOLS.register("idle")
@dataclass(frozen=True, kw_only=True)
class IdleProtocol(Protocol):
    """One epoch."""

    card = CARD
    tier: ClassVar[str] = "quick"
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "idle": Recipe(epochs=1),
        "supervised": Recipe(epochs=1),
    }
