"""Rows that need no training: the best of several, or a chosen epoch of one that was trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from raygrid.trials.evaluate import Score, metric_prefix
from raygrid.trials.result import Result
from raygrid.trials.trial import Trial


def _probes_at(base: Result, epoch: int) -> dict[str, dict[str, float]]:
    """The probes of a row after another epoch (position in its history); counts from the shares.

    A probe that was not asked after every epoch is left out.
    """
    said, found = base.history[epoch], {}
    for name, last in base.probes.items():
        short, n = metric_prefix(name), int(last["n"])
        if f"{short}_acc" in said:
            k, odds = round(said[f"{short}_acc"] * n), said.get(f"{short}_logodds")
            found[name] = Score(k, n, said[f"{short}_loss"], odds).row()
    return found


def derive_row(trial: Trial, bases: Sequence[Result]) -> Result:
    """The row of a derived trial from the rows of its `bases`, in their order.

    `derived_from` is the row that counts: the one the defense chose, or the first that failed.
    Where the defense selects an epoch, accuracies and probes are those after it. It is over when
    the last of its bases is: a row made anew is never older than the one before.
    """
    assert trial.bases, f"{trial.spec} is trained, not derived"
    defense = trial.defense.derived or trial.defense.links[0]
    broken = next((base for base in bases if base.status != "done"), None)
    at = bases.index(broken) if broken else defense.choose([_final(b) for b in bases])
    base = bases[at]
    row = dataclasses.replace(
        base,
        spec=str(trial.spec),
        key=trial.key,
        derived_from=base.key,
        winner=None if broken or len(bases) == 1 else trial.bases[at].chain,
        resolved=trial.resolved(),
        seconds=0.0,
        finished=max(base.finished for base in bases),
    )
    chosen = None if broken else defense.select(base.history)
    if chosen is not None:
        row.selected_epoch, row.probes = chosen + 1, _probes_at(base, chosen)
        row.final_acc = row.last_acc = base.history[chosen]["test_acc"]
    return row


def _final(result: Result) -> float:
    assert result.last_acc is not None, f"{result.spec} is done but has no accuracy"
    return result.last_acc
