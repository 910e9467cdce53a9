"""How much of a machine a job gets: a fraction 1/n of a GPU, or one CPU, more if memory lacks."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
import yaml
from ray.tune import PlacementGroupFactory

from raygrid.engine.costs.gpu_share import ARTIFACT_SHARE, BASE_CARD, memory_gb

BOOTSTRAP_CONFIG = Path("~/ray_bootstrap_config.yaml")
"""Where `ray up` leaves a cluster's description on its head."""


def slots(total: Mapping[str, float]) -> int:
    """How many artifacts a cluster of these resources can make at a time."""
    gpus = total.get("GPU", 0.0)
    return int(gpus / ARTIFACT_SHARE if gpus else total.get("CPU", 1.0))


def request(config: dict[str, Any]) -> PlacementGroupFactory:
    """The resources that a job's config asks for: its `gpu`, and its `cpu` unless that is 1."""
    bundle = {"CPU": float(config.get("cpu", 1.0))}
    if config["gpu"]:
        bundle["GPU"] = config["gpu"]
    return PlacementGroupFactory([bundle])


def share_of(factory: PlacementGroupFactory) -> float:
    """The part of a GPU that a request asks for."""
    return float(factory.bundles[0].get("GPU", 0.0))


def more_cpus(factory: PlacementGroupFactory) -> float | None:
    """Twice the CPUs of a request, as far as a node has them; None if it has all of one.

    What asks for more of them runs beside fewer others, which is what a lack of the machine's
    memory calls for.
    """
    cpus = float(factory.bundles[0]["CPU"])
    nodes = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
    more = min(2 * cpus, max(nodes, default=0.0))
    return more if more > cpus else None


def gpu_kind(total: Mapping[str, float]) -> str:
    """The smallest kind of GPU among a cluster's resources, empty if it has none.

    Ray names the cards it knows as `accelerator_type:A10G`.
    """
    if not total.get("GPU"):
        return ""
    names = (key.partition(":")[2] for key in total if key.startswith("accelerator_type:"))
    return min(sorted(names), key=memory_gb, default=BASE_CARD)


def promised(config: Path = BOOTSTRAP_CONFIG) -> dict[str, float]:
    """What a cluster may grow to have but need not have yet: `GPU`, if any worker type has one.

    RAYGRID_GPUS=1 says so for clusters that `ray up` did not make.
    """
    types: dict[str, Any] = {}
    with contextlib.suppress(OSError, yaml.YAMLError):
        types = yaml.safe_load(config.expanduser().read_text(encoding="utf-8"))[
            "available_node_types"
        ]
    offered = any(kind.get("resources", {}).get("GPU") for kind in types.values())
    return {"GPU": 1.0} if offered or os.environ.get("RAYGRID_GPUS") == "1" else {}
