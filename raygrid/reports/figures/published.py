"""The same figures from the numbers that the papers printed, as if they had been run."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from raygrid.literature.reference import load
from raygrid.reports.figures.scatters import peak_against_final
from raygrid.reports.tables.frame import frame


def published_scatter() -> Figure:
    """Peak against final accuracy as printed by Sandoval-Segura et al., table 1: 25 poisons."""
    return peak_against_final(printed("learned_faster", "1"))


def printed(paper: str, table: str) -> pd.DataFrame:
    """The trials of a printed table as a frame, one seed each, as if they had been run."""
    rows = load()
    rows = rows[(rows["paper"] == paper) & (rows["table"] == table) & rows["spec"].notna()]
    made: dict[str, dict[str, Any]] = {}
    for spec, measure, value in zip(rows["spec"], rows["measure"], rows["accuracy"], strict=True):
        made.setdefault(spec, {"spec": spec, "key": spec, "status": "done"})[measure] = value
    return frame(made.values())
