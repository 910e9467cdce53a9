"""What a trial or artifact will cost, before anything runs. Rough: for order and for planning."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from raygrid.architectures import ARCHITECTURES
from raygrid.architectures.base import Architecture
from raygrid.core.images import count_at
from raygrid.core.lazy import torch
from raygrid.datasets.base import Dataset
from raygrid.trials.artifacts import (
    Artifact,
    DatasetArtifact,
    DenoiserArtifact,
    PoisonArtifact,
    PurifiedArtifact,
    StudyArtifact,
    SurrogateArtifact,
)
from raygrid.trials.artifacts.features import FeaturesArtifact
from raygrid.trials.artifacts.shards import Shard
from raygrid.trials.trial import Trial


@dataclass(frozen=True)
class Speed:
    """How fast a device is: sustained training GFLOP/s, and the least seconds an image takes.

    CPU: measured on one thread of a server core, bf16 ResNet-18 and a 16-channel CNN. GPU: a
    24 GB inference card, from the papers' A100 hours scaled down; replace it by a measured one.
    float32: how much longer than in bf16 the same takes, which attacks and purifiers compute in;
    the papers' hours are of float32.
    """

    gflops: float
    per_image: float
    name: str
    float32: float = 1.0

    def seconds(self, gflop: float, images: float) -> float:
        """Time to push `images` images at `gflop` each."""
        return images * max(gflop / self.gflops, self.per_image)

    @property
    def of_float32(self) -> Speed:
        """The same device where everything is computed in float32."""
        return replace(self, gflops=self.gflops / self.float32, float32=1.0)


CPU = Speed(gflops=300.0, per_image=1.2e-4, name="CPU core", float32=2.1)
GPU = Speed(gflops=20_000.0, per_image=1.5e-5, name="GPU")


@dataclass
class Measured:
    """How much longer trials took than estimated, by architecture and learner."""

    factors: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, trials: Iterable[Trial], rows: Mapping[str, Mapping[str, Any]], speed: Speed
    ) -> Measured:
        """From the rows (by key) of trials that ran on such a device."""
        found = cls()
        for trial in trials:
            row = rows.get(trial.key, {})
            if row.get("status") == "done" and _same_device(str(row["device"]), speed):
                planned = trial_seconds(trial, speed) * row["epochs_run"] / trial.recipe.epochs
                found.factors.setdefault(_pair(trial), []).append(row["seconds"] / planned)
        return found

    def correct(self, trial: Trial, seconds: float) -> float:
        """An estimate by what was measured: of the same pair, else of all, else as it is."""
        known = self.factors.get(_pair(trial)) or [f for fs in self.factors.values() for f in fs]
        return seconds * (statistics.median(known) if known else 1.0)


def _pair(trial: Trial) -> tuple[str, str]:
    return trial.architecture.id, trial.learner.id


def _same_device(device: str, speed: Speed) -> bool:
    return device.startswith("cpu") if speed == CPU else speed.name in device


def trial_seconds(trial: Trial, speed: Speed) -> float:
    """Training plus one test pass an epoch, times what the learner and the defenses add.

    Making a view takes about as long as the least network does.
    """
    data = trial.dataset
    scale = (data.image_size / 32) ** 2
    forward = trial.architecture.gflop * scale
    factor = trial.learner.passes * trial.defense.cost
    epochs = trial.recipe.epochs
    images = data.train_size
    if trial.setup is not None and trial.setup.rule.per_class is not None:
        images = min(images, trial.setup.rule.per_class * data.classes)
    if trial.features is not None:  # a head on kept features: their cost is an artifact's
        return 1.0 + speed.seconds(0.0, images * epochs)
    train = speed.seconds(3 * forward, images * epochs * factor)
    if trial.learner.views:
        train += speed.seconds(0.0, 2 * images * epochs)
    return train + speed.seconds(forward, data.test_size * epochs)


def artifact_seconds(artifact: Artifact, speed: Speed) -> float:
    """By the passes through the network that is trained or attacked; the others are quick."""
    if isinstance(artifact, SurrogateArtifact):
        passes = 3.0 * artifact.recipe.recipe.epochs
        return pass_seconds(artifact.recipe.architecture, artifact.data, passes, speed)
    if isinstance(artifact, PoisonArtifact):
        return 1.0 + _poison_seconds(artifact, speed)
    if isinstance(artifact, FeaturesArtifact):
        data = artifact.data.dataset
        passes = artifact.passes + 3 * data.test_size / data.train_size
        architecture = artifact.extractor.recipe.architecture
        return 1.0 + pass_seconds(architecture, artifact.data, passes, speed)
    if isinstance(artifact, Shard):
        share = len(artifact.units) / artifact.poison.shards
        return artifact_seconds(artifact.poison, speed) * share
    if isinstance(artifact, DenoiserArtifact):
        return 1.0 + _fit_seconds(artifact.data.dataset, artifact.cost, speed)
    if isinstance(artifact, PurifiedArtifact | StudyArtifact):
        data = artifact.poison.data.dataset
        fit = _fit_seconds(data, artifact.cost, speed.of_float32)
        return 1.0 + data.train_size * 1e-4 + fit
    return 1.0


def _fit_seconds(data: Dataset, epochs: float, speed: Speed) -> float:
    """Time of so many epochs of a ResNet-18 on a dataset."""
    gflop = 3.3 * (data.image_size / 32) ** 2
    return speed.seconds(gflop, data.train_size * epochs)


def _poison_seconds(artifact: PoisonArtifact, speed: Speed) -> float:
    """Passes through every network of the attack; one on a target sees its bases alone."""
    attack, size = artifact.attack, artifact.data.train_size
    images = count_at(artifact.ratio, size)
    if artifact.setup is not None and attack.on_target:
        images = artifact.setup.rule.poisons
    return sum(
        pass_seconds(name, artifact.data, passes * images / size, speed.of_float32)
        for name, passes in attack.work(size)
    )


def pass_seconds(architecture: str, data: DatasetArtifact, passes: float, speed: Speed) -> float:
    """Time of so many forward passes of the whole training set; three are a training pass."""
    gflop = ARCHITECTURES.make(architecture).gflop * (data.dataset.image_size / 32) ** 2
    return speed.seconds(3 * gflop, data.train_size * passes / 3)


def artifact_bytes(artifact: Artifact) -> int:
    """Disk that an artifact takes: image sets by their size, weights as those of a ResNet-18."""
    if isinstance(artifact, SurrogateArtifact):
        return 45_000_000
    if isinstance(artifact, DenoiserArtifact):
        return artifact.plan.nbytes
    holder = artifact.poison if isinstance(artifact, PurifiedArtifact) else artifact
    data = holder.data if isinstance(holder, PoisonArtifact) else holder
    kind = getattr(data, "dataset", None)
    if kind is None:
        return 0
    image = 3 * kind.image_size**2 + 8
    both = kind.train_size + (kind.test_size if holder is data else 0)
    return int(both * image)


def kept_bytes(trial: Trial, keep: Iterable[str]) -> int:
    """Disk that a trial leaves on request (kinds of `raygrid.storage.store.LEFT`)."""
    keep = list(keep)
    if not keep:  # asked of every plan, and most leave nothing: then no network is looked at
        return 0
    classes, side = trial.dataset.classes, trial.dataset.image_size
    weights, width = _network_size(trial.architecture, classes, side)
    image = {"predictions": 2 * classes + 4, "features": 2 * width + 2}
    tests = trial.dataset.test_size
    return sum(tests * image[kind] if kind in image else weights for kind in keep)


@lru_cache
def _network_size(architecture: Architecture, classes: int, side: int) -> tuple[int, int]:
    """Bytes of a network's state, and the width of its features; it is built without memory."""
    with torch.device("meta"):
        network = architecture.build(classes, side, 0)
    state = network.state_dict().values()
    return sum(value.numel() * value.element_size() for value in state), network.width
