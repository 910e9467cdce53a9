"""How much of a GPU a trial needs, so that trials tile it: from measurements, else by a rule."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from raygrid.core.device import CONTEXT_MB
from raygrid.core.errors import SpecError, unknown
from raygrid.core.options import TRIALS_PER_GPU
from raygrid.engine.costs.profiles import Profile, Profiles, kind
from raygrid.trials.artifacts import Artifact
from raygrid.trials.run import HELD_SHARE
from raygrid.trials.trial import Trial

GPU_SHARES = tuple(1 / count for count in reversed(TRIALS_PER_GPU))
"""Fractions that tile a GPU whatever their order; others leave unusable remainders."""
ARTIFACT_SHARE = 1 / 2
"""What making an artifact gets if it needs a GPU."""
MEMORY_MARGIN = 1.15
"""Memory is asked for with this much more than was measured: fragments, other batches."""
MOST_DEFENSE_COST = 5.0
"""The most that a defense which trains longer counts as, where its memory is not known."""


@dataclass(frozen=True)
class Gpu:
    """A GPU as its maker describes it.

    memory_gb: GiB that the driver reports, less than the round number in the card's name where
    error correction takes some. bandwidth: GB/s of its memory. Small-image networks in bf16 are
    bound by memory traffic, so the bandwidth stands for speed until a run has measured it.
    """

    memory_gb: float
    bandwidth: float


GPU_CARDS = {
    "T4": Gpu(15.0, 320),
    "L4": Gpu(22.5, 300),
    "A10G": Gpu(22.5, 600),
    "V100": Gpu(15.8, 900),
    "L40S": Gpu(45.0, 864),
    "A100": Gpu(40.0, 1555),
    "H100": Gpu(79.6, 3350),
    "H200": Gpu(140.4, 4800),
}
BASE_CARD = "A10G"
"""The card that `core.speed.GPU` describes."""


def card(name: str) -> Gpu:
    """Raises SpecError for a name that is not known."""
    if name not in GPU_CARDS:
        raise SpecError(unknown("GPU", name, GPU_CARDS))
    return GPU_CARDS[name]


def memory_gb(gpu: str) -> float:
    """The memory in GiB of a kind of GPU; one that is not known counts as the base card."""
    return GPU_CARDS.get(gpu, GPU_CARDS[BASE_CARD]).memory_gb


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
            held = held_gib(work) / memory_gb(self.gpu)
            return max(ARTIFACT_SHARE, _step_up(held)) if work.gpu else 0.0
        profile = self.profiles.find(self.gpu, kind(work))
        wanted = 1 / self.per_gpu if self.per_gpu else self._measured(work, profile)
        return max(wanted, _step_up(profile.least) if profile.least else 0.0)

    def ran_out(self, work: Trial | Artifact, share: float) -> None:
        """A job found too little memory in its share: no trial of its kind gets that any more."""
        if not isinstance(work, Artifact):
            self.profiles.ran_out(work, self.gpu, share)
        self.outgrown += 1

    def _measured(self, trial: Trial, profile: Profile) -> float:
        """Measured memory decides what fits, measured throughput how many may compute at a time.

        Where there is no measurement the rules by FLOPs stand in.
        """
        if not profile.memory_mb:
            return rule(trial, memory_gb(self.gpu))
        part = needed(profile.memory_mb) / (1024 * memory_gb(self.gpu))
        crowd = 1 / profile.together if profile.together else _compute(trial)
        return max(_step_up(part), _step_up(crowd))


def needed(memory_mb: float) -> float:
    """MB of a card that a process needs whose pool came to so much."""
    return MEMORY_MARGIN * memory_mb + CONTEXT_MB


def fitting(memory_mb: float, total_mb: float) -> int:
    """How many such processes a card of so much memory holds, one at least."""
    return max(1, int(total_mb / needed(memory_mb)))


@dataclass(frozen=True)
class TooLarge:
    """Work that needs more memory in GiB than a GPU has, even alone on it.

    name: the kind of the trials, or one of the artifacts, which hold as much of a set and its
    noise each. count: how many there are.
    """

    what: Literal["trial", "artifact"]
    name: str
    count: int
    needed: float
    gpu: str

    def __str__(self) -> str:
        size = f"{self.needed:.1f} GiB"
        has = f"one {self.gpu} has {memory_gb(self.gpu):.1f}"
        way = "take a larger GPU" + (" or a smaller batch" if self.what == "trial" else "")
        of = "of" if self.what == "trial" else "such as"
        if self.count > 1:
            many = f"{self.count} {self.what}s {of} {self.name}"
            return f"{many} need {size} each, {has}: they will fail; {way}"
        one = f"a trial of {self.name}" if self.what == "trial" else self.name
        return f"{one} needs {size}, {has}: it will fail; {way}"


def too_large(works: Iterable[Trial | Artifact], gpu: str, profiles: Profiles) -> list[TooLarge]:
    """What does not fit a kind of GPU, as far as its memory and that of the works are known."""
    if gpu not in GPU_CARDS:
        return []
    trials: dict[str, list[float]] = {}
    made: dict[tuple[str, float], list[Artifact]] = {}
    for work in works:
        if not isinstance(work, Artifact):
            trials.setdefault(kind(work), []).append(_least_gib(work, gpu, profiles))
        elif work.gpu:
            made.setdefault((work.kind, held_gib(work)), []).append(work)
    sizes = [(name, [gib for gib in each if gib > memory_gb(gpu)]) for name, each in trials.items()]
    return [
        *(TooLarge("trial", name, len(each), max(each), gpu) for name, each in sizes if each),
        *(
            TooLarge("artifact", f"{name} {each[0].label}", len(each), gib, gpu)
            for (name, gib), each in made.items()
            if gib > memory_gb(gpu)
        ),
    ]


def held_gib(artifact: Artifact) -> float:
    """What making an artifact takes of a GPU at least, in GiB."""
    return artifact.held_nbytes / 2**30 + CONTEXT_MB / 1024


def _least_gib(trial: Trial, gpu: str, profiles: Profiles) -> float:
    """What a trial takes of a GPU. A training set that is too large for it comes in batches."""
    memory_mb = profiles.find(gpu, kind(trial)).memory_mb
    images_mb = 3 * trial.dataset.image_size**2 * trial.dataset.train_size / 2**20
    if images_mb > HELD_SHARE * 1024 * memory_gb(gpu):
        memory_mb = max(0.0, memory_mb - images_mb)
    return needed(memory_mb) / 1024


def rule(trial: Trial, memory_gb: float = GPU_CARDS[BASE_CARD].memory_gb) -> float:
    """The share by what the network and the learner keep in memory, before anything is measured."""
    weight = _weight(trial) * GPU_CARDS[BASE_CARD].memory_gb / memory_gb
    return _rung(weight, (0.2, 2.0, 8.0))


def _compute(trial: Trial) -> float:
    """The share by work alone: networks that fill a card do not run side by side."""
    return _rung(_weight(trial), (1.0, 8.0, 64.0))


def _weight(trial: Trial) -> float:
    """GFLOPs of a forward pass at batch 128, the measure of both memory and work."""
    scale = (trial.dataset.image_size / 32) ** 2
    weight = trial.architecture.gflop * scale * (trial.recipe.batch_size / 128)
    return weight * min(trial.learner.passes, 2.0) * min(trial.defense.cost, MOST_DEFENSE_COST)


def _rung(weight: float, limits: tuple[float, float, float]) -> float:
    return next((s for s, limit in zip(GPU_SHARES, limits, strict=False) if weight <= limit), 1.0)


def _step_up(share: float) -> float:
    """The smallest fraction of the ladder that is enough; a whole GPU is the most there is."""
    return next((step for step in GPU_SHARES if share <= step), 1.0)
