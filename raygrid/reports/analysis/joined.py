"""Rows of trials beside what their poisons say without a victim that was trained on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from raygrid.core.spec import TrialSpec
from raygrid.reports.analysis.fidelity import fidelity_of_poison
from raygrid.reports.analysis.questions import transferability
from raygrid.reports.analysis.records import Records, Victim
from raygrid.reports.tables import frame
from raygrid.trials.poisons import Poisoned


def with_answers(
    records: Records,
    rows: Iterable[Mapping[str, Any]],
    answer: str,
    victims: Sequence[Victim] = (),
) -> pd.DataFrame:
    """Lines of `reports.tables.frame` with an answer about each trial's poison in its own column.

    answer: `transfer_rate`, the share of the poisoned images that `victims` get wrong, mean over
    these; or `psnr` in dB, mean over images, none for the clean control. A poison of several
    trials is asked once.
    """
    known: dict[tuple[str, int], float | None] = {}
    kept, values = list(rows), []
    for row in kept:
        spec = TrialSpec.parse(row["spec"])
        poison = f"{spec.dataset}/{spec.attack}@{spec.poison_ratio!r}", spec.seed
        if poison not in known:
            known[poison] = _asked(records.poisoned(*poison), answer, victims)
        values.append(known[poison])
    return frame(kept).assign(**{answer: pd.Series(values, dtype=float)})


def _asked(poisoned: Poisoned, answer: str, victims: Sequence[Victim]) -> float | None:
    if answer == "psnr":
        return fidelity_of_poison(poisoned)[0].get("psnr")
    return float(transferability([poisoned], victims)[-1]["rate"])
