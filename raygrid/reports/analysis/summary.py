"""What the rows of finished trials say together: spread over seeds, and what it all cost."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from raygrid.core.errors import SpecError
from raygrid.core.spec import Part, TrialSpec
from raygrid.core.speed import CPU, GPU
from raygrid.engine.costs.estimate import trial_seconds
from raygrid.reports.statistics import caution
from raygrid.reports.tables.cells import cells_of
from raygrid.reports.tables.trial_lines import in_order, trial_lines
from raygrid.storage.store import Store
from raygrid.trials.resolve import resolve

if TYPE_CHECKING:
    from raygrid.reports.analysis.records import EvaluationRow


def over_seeds(rows: Iterable[Mapping[str, Any]], metric: str = "final_acc") -> list[EvaluationRow]:
    """Mean, sample standard deviation and 95 % interval of each cell, with its n and seeds.

    interval: `t` (Student's, over seeds), or `wilson` (over test images) for a single seed. A note
    says that the interval of two seeds is very wide. Of success on a target, which a seed has or
    has not, it is Wilson's over set-ups, and the deviation is the benchmark's standard error.
    """
    found = []
    for cell in cells_of(trial_lines(in_order(rows)), metric).values():
        found.append(
            {
                **cell.axes,
                "acc": cell.value,
                "std_acc": cell.std,
                "low_acc": cell.low,
                "high_acc": cell.high,
                "interval": cell.interval,
                "n": cell.n,
                "seeds": " ".join(map(str, cell.values)),
                **(caution(cell.n, share=True) if cell.interval == "t" else {}),
            }
        )
    return found


_ARTIFACT_KINDS = ("poison", "purified", "study")


def costs(
    rows: Iterable[Mapping[str, Any]], store: Store, every: Iterable[Mapping[str, Any]] = ()
) -> list[EvaluationRow]:
    """Seconds and memory of each trial, and seconds of the poison, purified set, study it used.

    fit_s, pass_s: of the purified set's, those that fitting networks took and putting images
    through them. standard_epochs: training_s in epochs of the supervised victim without a defense
    (`standard`) on the same dataset, network and device; epoch_s: what one of these takes, the
    median of those `measured` in the rows of `every`, of the same protocol if there are any, else
    by the `estimate` of plans (epoch_by says which). None where nothing is known: the trial has
    none, or the store was emptied since.
    """
    found, known = [], _standard_epochs(every)
    for row in rows:
        made = row.get("artifacts") or {}
        epoch, by = _epoch(row, known)
        found.append(
            {
                "spec": row["spec"],
                "training_s": row.get("seconds"),
                "standard_epochs": row["seconds"] / epoch if epoch else None,
                "epoch_s": epoch,
                "epoch_by": by,
                **{f"{kind}_s": _seconds(store, kind, made) for kind in _ARTIFACT_KINDS},
                "fit_s": _seconds(store, "purified", made, "fit_seconds"),
                "pass_s": _seconds(store, "purified", made, "pass_seconds"),
                "memory_mb": row.get("memory_mb"),
                "device": row.get("device"),
            }
        )
    return found


EpochSeconds = dict[tuple[str, str, str], dict[str, list[float]]]
"""Seconds of single epochs by dataset, network and device, then by protocol."""


def _standard_epochs(rows: Iterable[Mapping[str, Any]]) -> EpochSeconds:
    """The epochs of supervised victims without a defense that had the whole training set."""
    known: EpochSeconds = defaultdict(lambda: defaultdict(list))
    for row in rows:
        spec = TrialSpec.parse(row["spec"])
        plain = spec.chain == "standard" and spec.learner.name == "supervised"
        if plain and spec.attack.name != "withheld" and not row.get("derived_from"):
            took = [e["epoch_seconds"] for e in row.get("history", ()) if "epoch_seconds" in e]
            known[_place(spec, row)][str(spec.protocol)] += took
    return known


def _place(spec: TrialSpec, row: Mapping[str, Any]) -> tuple[str, str, str]:
    return str(spec.dataset), str(spec.architecture), str(row.get("device"))


def _epoch(row: Mapping[str, Any], known: EpochSeconds) -> tuple[float | None, str | None]:
    """Seconds of a standard epoch where a trial ran, and where that is from."""
    if not row.get("seconds"):
        return None, None
    spec = TrialSpec.parse(row["spec"])
    here = known.get(_place(spec, row), {})
    took = here.get(str(spec.protocol)) or [s for several in here.values() for s in several]
    if took:
        return statistics.median(took), "measured"
    plain = spec.replace(defense=(Part("standard"),), learner=Part("supervised"))
    try:
        trial = resolve(plain, None)
    except SpecError:  # of a method that is not installed here
        return None, None
    speed = CPU if str(row["device"]).startswith("cpu") else GPU
    return trial_seconds(trial, speed) / trial.recipe.epochs, "estimate"


def _seconds(store: Store, kind: str, made: Mapping[str, str], of: str = "seconds") -> float | None:
    meta = store.meta(kind, made[kind]) if kind in made else None
    return None if meta is None else meta["facts"].get(of)
