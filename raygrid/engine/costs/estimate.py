"""What a trial will cost, before anything runs: for order and for planning."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from raygrid.core.speed import CPU, Speed
from raygrid.engine.costs.profiles import gpu_of
from raygrid.trials.artifacts import Artifact
from raygrid.trials.artifacts.dataset import LEAST_MAKING_SECONDS
from raygrid.trials.trial import Trial

HEAD_COST = 0.05
"""Time of an image for a linear layer on kept features, where it is 1 for the least network."""


@dataclass
class Measured:
    """How much longer trials took than estimated, by architecture and learner."""

    factors: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, trials: Iterable[Trial], rows: Mapping[str, Mapping[str, Any]], speed: Speed
    ) -> Measured:
        """What the rows (by key) of trials say that ran on such a device."""
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


def crowded(work: Trial | Artifact, alone: float, speed: Speed, share: float) -> float:
    """Seconds of a job on a part of a device whose rest others use, from those of a whole one.

    What a device computes is divided among all on it. What it waits for, launches and images, is
    not: small networks lose nothing by company until they fill the card together. share: 0 of a job
    that needs no device.
    """
    if not share:
        return alone
    made = work.seconds if isinstance(work, Artifact) else functools.partial(trial_seconds, work)
    whole = made(speed)
    computing = made(replace(speed, per_image=0.0)) / whole if whole else 1.0
    return alone * max(1.0, computing / share)


def _pair(trial: Trial) -> tuple[str, str]:
    return trial.architecture.id, trial.learner.id


def _same_device(device: str, speed: Speed) -> bool:
    return device.startswith("cpu") if speed == CPU else gpu_of(device) == speed.name


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
    if trial.setup is not None:
        images = trial.setup.rule.pool_size(images, data.classes)
    if trial.features is not None:  # a head on kept features: their cost is an artifact's
        return LEAST_MAKING_SECONDS + HEAD_COST * speed.seconds(0.0, images * epochs)
    train = speed.seconds(3 * forward, images * epochs * factor)
    if trial.learner.views:
        train += speed.seconds(0.0, 2 * images * epochs)
    return LEAST_MAKING_SECONDS + train + speed.seconds(forward, data.test_size * epochs)
