"""Aggregated tables in MLflow: one run a row, so that its comparison views show dozens of runs."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raygrid.core.hashing import key_of
from raygrid.storage.results import REPORT_FILE
from raygrid.tracking.mlflow.client import TABLES_EXPERIMENT, MlflowExperiment
from raygrid.tracking.mlflow.facts import safe_name

if TYPE_CHECKING:
    import pandas as pd

COLUMN_AXES = {"transfer.csv": "architecture", "worst-learner.csv": "learner"}
"""The tables that are mirrored, and what becomes their columns."""
TABLE_METRICS = {"acc": "value", "published": "published"}
MIRRORED_FOLDERS = ("tables", "figures")
MOST_TABLE_ROWS = 500  # rows of a table; beyond these nobody compares runs


class Mirror:
    """Shows tables of a grid, found again by the grid's key and the texts of a row.

    Its errors are MLflow's own; writing anything twice changes nothing.
    """

    def __init__(self, out: Path, uri: str, grid: str, name: str) -> None:
        self.experiment = MlflowExperiment.of(out, uri, TABLES_EXPERIMENT)
        self.grid = grid
        self.name = name

    def keep(self, grid: MlflowExperiment, parent: str, file: Path) -> int:
        """A file of a grid goes to its parent run, below the folder that it lies in.

        The report page stands above them all. Of a table the rows are shown: returns how many.
        """
        folder = file.parent.name if file.parent.name in MIRRORED_FOLDERS else "tables"
        grid.client.log_artifact(parent, str(file), None if file.name == REPORT_FILE else folder)
        return self.show(file)

    @property
    def link(self) -> str:
        """Where the rows are, for the description of the parent run."""
        address = f"#/experiments/{self.experiment.id}/runs"
        return f"[Transfer and worst learner as runs that compare]({address})"

    def show(self, file: Path) -> int:
        """Mirror the file of a table that is worth it; returns how many rows that were."""
        across = COLUMN_AXES.get(file.name)
        if across is None or not file.exists():
            return 0
        rows = wide(file, across)[:MOST_TABLE_ROWS]
        for row in rows:
            self._show(file.stem, row)
        return len(rows)

    def _show(self, table: str, row: Mapping[str, Any]) -> None:
        texts = {safe_name(k): v for k, v in row.items() if isinstance(v, str)}
        numbers = {safe_name(k): float(v) for k, v in row.items() if not isinstance(v, str)}
        key = key_of(["row", self.grid, table, texts])
        about = {"raygrid.table": table, "raygrid.grid": self.name}
        run = self.experiment.open(key, f"{table}: {row['attack']}", about, time.time())
        known = self.experiment.client.get_run(run).data.metrics
        now = int(time.time() * 1000)
        changed = [(k, v, now, 0) for k, v in numbers.items() if known.get(k) != v]
        self.experiment.write(run, changed, {"table": table, **texts})
        self.experiment.end(key, "FINISHED", time.time())


def wide(file: Path, across: str) -> list[dict[str, Any]]:
    """The lines of a table: texts that name it, and `acc/<column>`, `published/<column>` numbers.

    file: as `tables.csv_text` writes it, a line a cell. across: its field with the columns.
    """
    import pandas as pd

    cells = pd.read_csv(file)
    names = ("dataset", "protocol", "architecture", "learner", "poison_ratio", "defense", "attack")
    down = [name for name in names if name != across]
    lines: dict[tuple[str, ...], dict[str, Any]] = {}
    for _, cell in cells.iterrows():
        texts = tuple(str(cell[name]) for name in down)
        line = lines.setdefault(texts, dict(zip(down, texts, strict=True)))
        line |= _numbers(cell, str(cell[across]))
    return list(lines.values())


def _numbers(cell: pd.Series, column: str) -> dict[str, float]:
    found = {f"{name}/{column}": cell[field] for name, field in TABLE_METRICS.items()}
    return {name: float(v) for name, v in found.items() if _is_number(v)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
