"""How much of a machine a job gets: a fraction 1/n of a GPU, or one CPU."""

from __future__ import annotations

from typing import Any

from ray.tune import PlacementGroupFactory

from raygrid.resolve import Trial
from raygrid.schedule import Job

LADDER = (1 / 8, 1 / 4, 1 / 2, 1.0)
"""Fractions that tile a GPU whatever their order; others leave unusable remainders."""


def fraction(trial: Trial) -> float:
    """Share of a 24 GB GPU by what the network and the learner keep in memory."""
    scale = (trial.dataset.image_size / 32) ** 2
    weight = trial.architecture.gflop * scale * (trial.recipe.batch_size / 128)
    weight *= min(trial.learner.passes, 2.0)
    for share, limit in zip(LADDER, (0.2, 2.0, 8.0), strict=False):
        if weight <= limit:
            return share
    return 1.0


def share_of(job: Job) -> float:
    """The GPU share of any job; making artifacts gets a half, or none where it needs none."""
    if job.artifact is not None:
        return 0.5 if job.artifact.gpu else 0.0
    assert job.trial is not None
    return fraction(job.trial)


def request(config: dict[str, Any]) -> PlacementGroupFactory:
    """The resources that a job's config asks for."""
    bundle = {"CPU": 1.0}
    if config["gpu"]:
        bundle["GPU"] = config["gpu"]
    return PlacementGroupFactory([bundle])


def doubled(factory: PlacementGroupFactory) -> PlacementGroupFactory | None:
    """The request with twice the GPU, None if it had a whole one or none."""
    bundle = dict(factory.bundles[0])
    if not 0 < bundle.get("GPU", 0) < 1:
        return None
    bundle["GPU"] = min(1.0, 2 * bundle["GPU"])
    return PlacementGroupFactory([bundle])
