"""What MLflow is told: functions of specs and results alone, within MLflow's limits."""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from raygrid.core.errors import SpecError
from raygrid.core.spec import TrialSpec
from raygrid.trials.result import Result

PARAM_LENGTH, TAG_LENGTH, NAME_LENGTH = 6000, 8000, 250  # characters
STATUS = {"done": "FINISHED", "skipped": "FINISHED", "failed": "FAILED", "diverged": "FAILED"}
ONCE = (
    "peak_acc",
    "peak_epoch",
    "knn_peak",
    "probe_peak",
    "probe_final",
    "final_acc",
    "last_acc",
    "selected_epoch",
    "epochs_run",
    "epochs_to_half",
    "seconds",
    "memory_mb",
    "utilization",
)

Point = tuple[str, float, int, int]
"""A metric: name, value, timestamp in ms, step."""


def params_of(spec: str, resolved: Mapping[str, Any]) -> dict[str, str]:
    """The axes of a trial and every resolved parameter, `attack.patch` and the like."""
    return {**dotted(resolved), **{k: shortened(v, PARAM_LENGTH) for k, v in axes(spec).items()}}


def axes(spec: str) -> dict[str, str]:
    """The coordinates of a spec by axis."""
    parsed = TrialSpec.parse(spec)
    return {
        "dataset": str(parsed.dataset),
        "attack": str(parsed.attack),
        "poison_ratio": str(parsed.poison_ratio),
        "defense": parsed.chain,
        "architecture": str(parsed.architecture),
        "learner": str(parsed.learner),
        "protocol": str(parsed.protocol),
        "seed": str(parsed.seed),
    }


def dotted(value: Any, prefix: str = "") -> dict[str, str]:
    """Nested values under dotted names. The members of a list of methods go by their id."""
    if isinstance(value, Mapping):
        pairs = [(str(name), inner) for name, inner in value.items()]
    elif isinstance(value, list | tuple) and any(isinstance(v, Mapping) for v in value):
        ids = [str(v.get("id", "")) for v in value]
        unique = all(ids) and len(set(ids)) == len(ids)
        pairs = [(ids[i] if unique else str(i), v) for i, v in enumerate(value)]
    else:
        plain = list(value) if isinstance(value, tuple) else value  # as it comes back from JSON
        return {safe_name(prefix): shortened(str(plain), PARAM_LENGTH)}
    out: dict[str, str] = {}
    for name, inner in pairs:
        out |= dotted(inner, f"{prefix}.{name}" if prefix else name)
    return out


def epoch_points(history: Iterable[Mapping[str, float]]) -> list[Point]:
    """The metrics of epochs. Their timestamp is the epoch: MLflow drops points that it has."""
    points = []
    for epoch in history:
        step = int(epoch["epoch"])
        for name, value in epoch.items():
            if name not in ("epoch", "peak_acc", "peak_epoch"):
                points.append((safe_name(name), _finite(value), step, step))
    return points


def final_metrics(result: Result) -> list[Point]:
    """What is measured once a trial. A later row of the same trial has a later timestamp."""
    values = {name: getattr(result, name) for name in ONCE}
    for probe, score in result.probes.items():
        values |= {f"probe/{probe}/{name}": value for name, value in score.items()}
    at = int(result.finished * 1000)
    return [(safe_name(k), _finite(v), at, 0) for k, v in values.items() if v is not None]


def tags_of(result: Result) -> dict[str, str]:
    """What one filters and groups by."""
    tags = {
        "raygrid.spec": result.spec,
        "raygrid.status": result.status,
        "raygrid.device": result.device,
        "raygrid.commit": result.commit,
        "raygrid.reason": result.reason,
        "raygrid.derived_from": result.derived_from,
        "raygrid.winner": result.winner,
        "raygrid.error": (result.error or "").partition("\n")[0],
    }
    tags |= {f"raygrid.artifact.{kind}": key for kind, key in result.artifacts.items()}
    tags |= {f"raygrid.version.{name}": version for name, version in result.versions.items()}
    # An empty text takes away what an earlier attempt left there.
    return {name: shortened(value or "", TAG_LENGTH) for name, value in tags.items()}


def grid_tags(specs: Iterable[str]) -> dict[str, str]:
    """Every axis of a grid with its values, and the number of trials.

    A spec that this version cannot read counts as a trial and adds no values.
    """
    listed = list(specs)
    points = []
    for spec in listed:
        with suppress(SpecError):
            points.append(axes(spec))
    tags = {"raygrid.trials": str(len(listed))}
    for axis in points[0] if points else ():
        values = dict.fromkeys(point[axis] for point in points)
        tags[f"raygrid.axis.{axis}"] = shortened(", ".join(values), TAG_LENGTH)
    return tags


def shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def safe_name(text: str) -> str:
    """A name that MLflow takes: few characters, and normal as a relative path."""
    plain = re.sub(r"[^\w\-. :/]", "_", text)[:NAME_LENGTH]
    return posixpath.normpath(plain).lstrip("./") or "_"


def _finite(value: float) -> float:
    """MLflow keeps NaN, but turns infinity into a huge number that ruins every plot."""
    return float(value) if math.isfinite(value) else math.nan
