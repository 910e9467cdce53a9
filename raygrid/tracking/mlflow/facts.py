"""What MLflow is told: functions of specs and results alone, within MLflow's limits."""

from __future__ import annotations

import getpass
import json
import math
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raygrid.core.budget import Budget
from raygrid.core.errors import SpecError
from raygrid.core.literals import format_scalar
from raygrid.core.spec import Part, TrialSpec
from raygrid.core.text import first_line
from raygrid.literature.printed import Printed
from raygrid.tracking.published import beside
from raygrid.trials.result import Result, data_facts

PARAM_LENGTH, TAG_LENGTH, NAME_LENGTH, DATASET_LENGTH = 6000, 8000, 250, 500  # characters
RUN_STATUS = {"done": "FINISHED", "failed": "FAILED", "diverged": "FAILED"}
RUN_LAYOUT = 2
"""Of what a trial's run holds. Runs of an older one are written anew in their place."""
LAYOUT_TAG = "raygrid.layout"
TRIAL_METRICS = ("final_acc", "peak_acc", "knn_peak", "probe_peak", "probe_final", "seconds")
MORE_METRICS = (
    "peak_epoch",
    "last_acc",
    "selected_epoch",
    "epochs_run",
    "epochs_to_half",
    "memory_mb",
    "utilization",
)
"""What is measured once a trial and compared less often: `more/peak_epoch`."""
COUNT_METRICS = ("k", "n")

Point = tuple[str, float, int, int]
"""A metric: name, value, timestamp in ms, step."""


@dataclass(frozen=True)
class Control:
    """The trial on clean data that a trial is compared with: its accuracy, and when it ended."""

    final_acc: float
    finished: float


@dataclass(frozen=True)
class Shown:
    """What stands beside a trial: its name among others, its control, a paper's number.

    picture: of its poison, None if there is none; picture_at: the address of one at another run.
    """

    name: str
    control: Control | None = None
    published: Printed | None = None
    picture: Path | None = None
    picture_at: str = ""


def written_mark(finished: float, control: Control | None) -> str:
    """Says which row a run holds, and with which control."""
    return f"{finished}" if control is None else f"{finished} {control.finished}"


def control_of(spec: TrialSpec) -> str:
    """The spec of the same trial on clean data."""
    return str(spec.replace(attack=Part("clean"), poison_ratio=1.0))


def params_of(spec: str, resolved: Mapping[str, Any]) -> dict[str, str]:
    """The axes of a trial alone, the budget as a number in units of the pixel range or a count.

    Clean data has the budget and the poison ratio 0; an attack without a budget has none.
    """
    attack = TrialSpec.parse(spec).attack
    own = (f"{key}={format_scalar(value)}" for key, value in attack.params if key != "budget")
    params = {**axes(spec), "attack": attack.name, "attack_params": ", ".join(own) or "default"}
    text = (resolved.get("attack") or {}).get("budget")
    if attack.name == "clean":
        params |= {"poison_ratio": "0.0", "budget": "0.0", "budget_norm": "none"}
    elif text is not None:
        budget = Budget.parse(text, Budget("linf", 8 / 255))  # it names its norm unless linf
        params |= {"budget": repr(budget.value), "budget_norm": budget.norm}
    return {name: shortened(value, PARAM_LENGTH) for name, value in params.items()}


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


def is_contrastive(resolved: Mapping[str, Any]) -> bool:
    """Whether a trial's epochs are scored by kNN and its end by a linear probe."""
    return bool(resolved.get("probing"))


def epoch_points(history: Iterable[Mapping[str, float]], knn: bool = False) -> list[Point]:
    """The metrics of epochs. Their timestamp is the epoch: MLflow drops points that it has.

    knn: whether the test accuracy of an epoch is one of nearest neighbors.
    """
    points = []
    for epoch in history:
        step = int(epoch["epoch"])
        for name, value in epoch.items():
            if name not in ("epoch", "peak_acc", "peak_epoch"):
                said = "knn_acc" if knn and name == "test_acc" else name
                points.append((safe_name(f"epoch/{said}"), _finite(value), step, step))
    return points


def final_metrics(result: Result, shown: Shown | None = None) -> list[Point]:
    """What is measured once a trial. A later row of the same trial has a later timestamp."""
    shown = shown or Shown(result.spec)
    control = shown.control
    values: dict[str, float | None] = {
        name: None if value is None else rounded(value)
        for name, value in _summary(result, shown).items()
    }
    values |= {f"more/{name}": getattr(result, name) for name in MORE_METRICS}
    for probe, score in result.probes.items():
        values |= {f"probe/{probe}/{k}": v for k, v in score.items() if k not in COUNT_METRICS}
    values |= {f"detection/{k}": v for k, v in result.detection.items() if k not in COUNT_METRICS}
    at = int(result.finished * 1000)
    points = [(safe_name(k), _finite(v), at, 0) for k, v in values.items() if v is not None]
    if control is not None and result.final_acc is not None:
        # MLflow shows the latest value: a control that was measured again counts from then on.
        later = max(at, int(control.finished * 1000))
        points.append(("drop_vs_clean", rounded(control.final_acc - result.final_acc), later, 0))
    return points


def rounded(value: float) -> float:
    """A value with the digits that test sets of 10,000 images give; MLflow's columns are narrow."""
    return round(value, 4)


def _summary(result: Result, shown: Shown) -> dict[str, float | None]:
    """What one compares; accuracies of kNN and of linear probes by their names."""
    values = {name: getattr(result, name) for name in TRIAL_METRICS}
    if is_contrastive(result.resolved) and result.knn_peak is None:  # a row of an older version
        values |= {"knn_peak": result.peak_acc, "peak_acc": None}
    if shown.published is not None:
        values["published_acc"] = shown.published.value
        if result.final_acc is not None and not data_facts(result.marks):
            values["minus_published"] = result.final_acc - shown.published.value
    return values


def tags_of(result: Result, shown: Shown | None = None) -> dict[str, str]:
    """What one filters and groups by."""
    tags = {
        "raygrid.spec": result.spec,
        "raygrid.published": beside(shown.published, result.marks) if shown else "",
        "raygrid.picture": shown.picture_at if shown else "",
        "raygrid.status": result.status,
        "raygrid.device": result.device,
        "raygrid.commit": result.commit,
        "raygrid.derived_from": result.derived_from,
        "raygrid.winner": result.winner,
        "raygrid.error": first_line(result.error),
    }
    tags |= {f"raygrid.artifact.{kind}": key for kind, key in result.artifacts.items()}
    tags |= {f"raygrid.version.{name}": version for name, version in result.versions.items()}
    tags |= {f"mlflow.source.{name}": value for name, value in _origin(result.commit)}
    # An empty text takes away what an earlier attempt left there.
    return {name: shortened(value or "", TAG_LENGTH) for name, value in tags.items()}


def user() -> str:
    """Who runs this; empty where the system does not know, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def _origin(commit: str) -> Iterator[tuple[str, str]]:
    """MLflow's own tags for where a run comes from."""
    yield "name", "raygrid"
    yield "type", "LOCAL"
    if commit:
        yield "git.commit", commit


def poison_input(result: Result) -> dict[str, str] | None:
    """The poison of a trial as MLflow's dataset: key, what it is, how it is made.

    None for a row without one, such as one that failed before or is derived.
    """
    key = result.artifacts.get("poison")
    if key is None:
        return None
    spec = TrialSpec.parse(result.spec)
    name = f"{spec.dataset}/{spec.attack}/{spec.seed}"
    tags = {"mlflow.source.name": f"raygrid poison {name}", "mlflow.source.type": "raygrid"}
    tags |= {"mlflow.source.git.commit": result.commit} if result.commit else {}
    return {
        "name": shortened(name, DATASET_LENGTH),
        "digest": key,
        "source_type": "code",
        "source": json.dumps({"tags": tags}),
    }


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


def strict_json(value: Any) -> str:
    """A value as strict JSON: numbers that are not finite become null."""
    return json.dumps(_nulled(value), indent=1)


def _nulled(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _nulled(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_nulled(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
