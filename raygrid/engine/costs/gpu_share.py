"""How much of a GPU a trial needs, so that trials tile it: from measurements, else by a rule."""

from __future__ import annotations

from dataclasses import dataclass

from raygrid.core.device import CONTEXT_MB
from raygrid.core.errors import SpecError, unknown
from raygrid.engine.costs.profiles import Profile, Profiles, kind
from raygrid.trials.artifacts import Artifact
from raygrid.trials.trial import Trial

LADDER = (1 / 8, 1 / 4, 1 / 2, 1.0)
"""Fractions that tile a GPU whatever their order; others leave unusable remainders."""
ARTIFACT = 1 / 2
"""What making an artifact gets if it needs a GPU."""
ROOM = 1.15
"""Memory is asked for with this much more than was measured: fragments, other batches."""
CROWD = 1.25
"""So much work the holders of a GPU may bring together: none of them computes all the time."""


@dataclass(frozen=True)
class Gpu:
    """A GPU as its maker describes it.

    memory_gb: of the card. bandwidth: GB/s of its memory. Small-image networks in bf16 are bound
    by memory traffic, so the bandwidth stands for speed until a run has measured it.
    """

    memory_gb: float
    bandwidth: float


CARDS = {
    "T4": Gpu(16, 320),
    "L4": Gpu(24, 300),
    "A10G": Gpu(24, 600),
    "V100": Gpu(16, 900),
    "L40S": Gpu(48, 864),
    "A100": Gpu(40, 1555),
    "H100": Gpu(80, 3350),
    "H200": Gpu(141, 4800),
}
BASE = "A10G"
"""The card that `estimate.GPU` describes."""


def card(name: str) -> Gpu:
    """Raises SpecError for a name that is not known."""
    if name not in CARDS:
        raise SpecError(unknown("GPU", name, CARDS))
    return CARDS[name]


def check_per_gpu(count: int | None) -> None:
    """Raises SpecError for a number of trials that do not tile a GPU."""
    fits = [round(1 / share) for share in reversed(LADDER)]
    if count is not None and count not in fits:
        allowed = ", ".join(map(str, fits))
        raise SpecError(f"{count} trials to a GPU do not tile it; allowed are {allowed}")


def memory_gb(gpu: str) -> float:
    """Of a kind of GPU; one that is not known counts as the base card."""
    return CARDS.get(gpu, CARDS[BASE]).memory_gb


@dataclass
class Sharing:
    """How a run divides the GPUs of its cluster.

    gpu: their kind (of several the smallest), empty if there are none. per_gpu: so many trials to
    a GPU, whatever they take. outgrown: how often a job found too little memory in its share.
    """

    profiles: Profiles
    gpu: str = ""
    per_gpu: int | None = None
    outgrown: int = 0

    def share(self, work: Trial | Artifact) -> float:
        """The part 1/n of a GPU that a trial to run or an artifact to make gets."""
        if not self.gpu:
            return 0.0
        if isinstance(work, Artifact):
            return ARTIFACT if work.gpu else 0.0
        profile = self.profiles.find(self.gpu, kind(work))
        wanted = 1 / self.per_gpu if self.per_gpu else self._measured(work, profile)
        return max(wanted, _step_up(profile.least) if profile.least else 0.0)

    def ran_out(self, work: Trial | Artifact, share: float) -> None:
        """A job found too little memory in its share: no trial of its kind gets that any more."""
        if not isinstance(work, Artifact):
            self.profiles.ran_out(work, self.gpu, share)
        self.outgrown += 1

    def _measured(self, trial: Trial, profile: Profile) -> float:
        """Measured memory decides what fits, measured use how many may compute at a time.

        Where there is no measurement the rules by FLOPs stand in.
        """
        if not profile.memory_mb:
            return rule(trial, memory_gb(self.gpu))
        needed = (ROOM * profile.memory_mb + CONTEXT_MB) / (1024 * memory_gb(self.gpu))
        return max(_step_up(needed), _busy(trial, profile))


def _busy(trial: Trial, profile: Profile) -> float:
    """The share by work: what was seen, twice what was too little, else by the network."""
    if profile.use:
        return _step_up(profile.use / CROWD)
    return _step_up(2 * profile.full) if profile.full else _compute(trial)


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
