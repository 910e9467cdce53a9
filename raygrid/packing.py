"""How much of a GPU a trial needs, so that trials tile it: from measurements, else by a rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from raygrid.artifacts import Artifact
from raygrid.errors import SpecError, unknown
from raygrid.resolve import Trial

LADDER = (1 / 8, 1 / 4, 1 / 2, 1.0)
"""Fractions that tile a GPU whatever their order; others leave unusable remainders."""
ARTIFACT = 1 / 2
"""What making an artifact gets if it needs a GPU."""
ROOM = 1.15
"""Memory is asked for with this much more than was measured: fragments, other batches."""
CONTEXT_MB = 600.0
"""What a process takes on a GPU beside torch's own pool: context, cuBLAS and cuDNN workspaces."""


@dataclass(frozen=True)
class Card:
    """A GPU as its maker describes it.

    memory_gb: of the card. bandwidth: GB/s of its memory. Small-image networks in bf16 are bound
    by memory traffic, so the bandwidth stands for speed until a run has measured it.
    """

    memory_gb: float
    bandwidth: float


CARDS = {
    "T4": Card(16, 320),
    "L4": Card(24, 300),
    "A10G": Card(24, 600),
    "V100": Card(16, 900),
    "L40S": Card(48, 864),
    "A100": Card(40, 1555),
    "H100": Card(80, 3350),
    "H200": Card(141, 4800),
}
BASE = "A10G"
"""The card that `estimate.GPU` describes."""


def card(name: str) -> Card:
    """Raises SpecError for a name that is not known."""
    if name not in CARDS:
        raise SpecError(unknown("GPU", name, CARDS))
    return CARDS[name]


def kind(trial: Trial) -> str:
    """What a profile is valid for: architecture, learner, batch size and image size."""
    size, batch = trial.dataset.image_size, trial.recipe.batch_size
    return f"{trial.architecture.id}/{trial.learner.id}/{batch}/{size}"


@dataclass
class Profiles:
    """Peak memory of trials by kind, in MB, each the most that was seen."""

    memory_mb: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, trials: Iterable[Trial], rows: Mapping[str, Mapping[str, Any]]) -> Profiles:
        """What the rows of earlier runs say about the trials of a plan, by key."""
        found = cls()
        for trial in trials:
            if trial.key in rows:
                found.learn(trial, rows[trial.key])
        return found

    def learn(self, trial: Trial, row: Mapping[str, Any]) -> None:
        """Take in a finished trial; only one that ran on a GPU says anything."""
        if row.get("status") == "done" and not str(row.get("device", "cpu")).startswith("cpu"):
            name, seen = kind(trial), float(row.get("memory_mb") or 0.0)
            self.memory_mb[name] = max(seen, self.memory_mb.get(name, 0.0))

    def share(self, trial: Trial, memory_gb: float = CARDS[BASE].memory_gb) -> float:
        """The part 1/n of a GPU with that much memory that a trial gets.

        Measured memory decides what fits, the rule by FLOPs how many may compute at a time.
        """
        known = self.memory_mb.get(kind(trial))
        if known is None:
            return rule(trial, memory_gb)
        needed = (ROOM * known + CONTEXT_MB) / (1024 * memory_gb)
        return max(_step_up(needed), _compute(trial))


@dataclass
class Sharing:
    """How a run divides the GPUs of its cluster, none if `memory_gb` is 0."""

    profiles: Profiles
    memory_gb: float

    def share(self, work: Trial | Artifact) -> float:
        """Of a trial to run or an artifact to make."""
        if not self.memory_gb:
            return 0.0
        if isinstance(work, Artifact):
            return ARTIFACT if work.gpu else 0.0
        return self.profiles.share(work, self.memory_gb)


def rule(trial: Trial, memory_gb: float = CARDS[BASE].memory_gb) -> float:
    """The share by what the network and the learner keep in memory, before anything is measured."""
    weight = _weight(trial) * CARDS[BASE].memory_gb / memory_gb
    return _rung(weight, (0.2, 2.0, 8.0))


def _compute(trial: Trial) -> float:
    """The share by work alone: networks that fill a card do not run side by side."""
    return _rung(_weight(trial), (1.0, 8.0, 64.0))


def _weight(trial: Trial) -> float:
    """GFLOPs of a forward pass at batch 128, the measure of both memory and work."""
    scale = (trial.dataset.image_size / 32) ** 2
    weight = trial.architecture.gflop * scale * (trial.recipe.batch_size / 128)
    return weight * min(trial.learner.passes, 2.0)


def _rung(weight: float, limits: tuple[float, float, float]) -> float:
    return next((s for s, limit in zip(LADDER, limits, strict=False) if weight <= limit), 1.0)


def _step_up(share: float) -> float:
    """The smallest fraction of the ladder that is enough; a whole GPU is the most there is."""
    return next((step for step in LADDER if share <= step), 1.0)
