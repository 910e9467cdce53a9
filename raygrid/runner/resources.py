"""How much of a machine a job gets: a fraction 1/n of a GPU, or one CPU."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from ray.tune import PlacementGroupFactory

from raygrid.packing import ARTIFACT, BASE, CARDS, card

BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")
"""Where `ray up` leaves a cluster's description on its head."""


def slots(total: Mapping[str, float]) -> int:
    """How many artifacts a cluster of these resources can make at a time."""
    gpus = total.get("GPU", 0.0)
    return int(gpus / ARTIFACT if gpus else total.get("CPU", 1.0))


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


def memory_gb(total: Mapping[str, float]) -> float:
    """Memory of the smallest GPU among a cluster's resources, 0 if it has none.

    Ray names the cards it knows as `accelerator_type:A10G`.
    """
    if not total.get("GPU"):
        return 0.0
    names = (key.partition(":")[2] for key in total if key.startswith("accelerator_type:"))
    known = (CARDS[name].memory_gb for name in names if name in CARDS)
    return min(known, default=card(BASE).memory_gb)


def promised(config: Path = BOOTSTRAP) -> dict[str, float]:
    """What a cluster may grow to have but need not have yet: `GPU`, if any worker type has one.

    RAYGRID_GPUS=1 says so for clusters that `ray up` did not make.
    """
    types: dict[str, Any] = {}
    with contextlib.suppress(OSError, yaml.YAMLError):
        types = yaml.safe_load(config.expanduser().read_text())["available_node_types"]
    offered = any(kind.get("resources", {}).get("GPU") for kind in types.values())
    return {"GPU": 1.0} if offered or os.environ.get("RAYGRID_GPUS") == "1" else {}
