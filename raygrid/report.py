"""Plans as text and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from raygrid.estimate import CPU, GPU, artifact_bytes, artifact_seconds, trial_seconds
from raygrid.grid import Plan
from raygrid.progress import clock
from raygrid.store import Store


def marks_of(plan: Plan, store: Store) -> list[str]:
    """What is marked in the artifacts of a plan that are there already, such as weak surrogates."""
    metas = (store.meta(a.kind, a.key) for a in plan.artifacts)
    found = (mark for meta in metas if meta for mark in meta["facts"].get("marks", ()))
    return list(dict.fromkeys(found))


def plan_json(plan: Plan, known: bool = True, marks: Sequence[str] = ()) -> dict[str, Any]:
    """Trials, derived rows, skips with reasons, artifacts, estimates, marks (see `marks_of`).

    known: whether the data were looked at; without them keys are not those of a run.
    """
    return {
        "trials": [{"spec": str(t.spec), "key": t.key if known else None} for t in plan.trials],
        "derived": [{"spec": str(t.spec), "from": [str(b) for b in t.bases]} for t in plan.derived],
        "skips": [{"spec": s.spec, "reason": s.reason} for s in plan.skips],
        "artifacts": [
            {"kind": a.kind, "label": a.label, "key": a.key if known else None}
            for a in plan.artifacts
        ],
        "estimates": estimates(plan),
        "marks": list(marks),
    }


def estimates(plan: Plan) -> dict[str, float]:
    """Rough costs: hours on one CPU core and on one GPU, and gigabytes of disk."""
    found = {}
    for speed, name in ((CPU, "cpu_core_hours"), (GPU, "gpu_hours")):
        trials = sum(trial_seconds(t, speed) for t in plan.trials)
        made = sum(artifact_seconds(a, speed) for a in plan.artifacts)
        found[name] = round((trials + made) / 3600, 4)
    found["disk_gb"] = round(sum(map(artifact_bytes, plan.artifacts)) / 1e9, 4)
    return found


def plan_text(plan: Plan, known: bool = True, marks: Sequence[str] = ()) -> str:
    """The same for a person."""
    costs = estimates(plan)
    kinds = Counter(a.kind for a in plan.artifacts)
    made = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items())) or "none"
    lines = [
        f"{len(plan.trials)} trials, {len(plan.derived)} rows derived from them, "
        f"{len(plan.skips)} skipped",
        f"artifacts: {made}",
        f"estimate: {clock(3600 * costs['cpu_core_hours'])} on one CPU core or "
        f"{clock(3600 * costs['gpu_hours'])} on one GPU, {costs['disk_gb']:.2f} GB of disk",
    ]
    reasons = Counter(skip.reason for skip in plan.skips)
    lines += [f"skipped {n}: {reason}" for reason, n in reasons.most_common()]
    lines += [f"note: {mark}" for mark in marks]
    if not known:
        lines.append("the data were not found here, so what is done already is not known")
    return "\n".join(lines)
