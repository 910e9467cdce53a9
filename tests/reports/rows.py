"""What the tests of reports share: rows as runs leave them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from raygrid.literature.reference import load
from raygrid.reports.tables.cells import Cell
from raygrid.reports.tables.frame import frame
from raygrid.reports.tables.kinds import all_tables
from raygrid.reports.tables.layout import Table
from raygrid.reports.tables.trial_lines import in_order, trial_lines
from raygrid.reports.tables.write import write_made
from raygrid.trials.result import Result

Json = dict[str, Any]
CIFAR = "cifar10/{}/standard/resnet18/supervised/{}/{}"
TOY = "photo_digits/{}/{}/small_cnn/{}/quick/{}"
ES = "early_stopping"
VAL, HELD = "early_stopping(mode=clean_val)", "early_stopping(mode=poison_val)"


def trial(spec: str, acc: float | None = None, **fields: Any) -> Json:
    """A row as a run leaves it, with `acc` after the last epoch and 5 points more at its peak."""
    row = Result(spec, key=spec, **fields)
    row.epochs_run = row.epochs_planned = 15
    if acc is not None:
        row.final_acc = None if row.stopped_early else acc
        row.last_acc = acc
        row.peak_acc, row.peak_epoch = min(1.0, acc + 0.05), 3
        row.probes = {"clean_test": {"k": acc * 1000, "n": 1000, "acc": acc, "loss": 1.0}}
    return row.row()


def as_if_run(paper: str, table: str) -> pd.DataFrame:
    """The trials of a printed table as a frame, one seed each."""
    rows = load()
    rows = rows[(rows["paper"] == paper) & (rows["table"] == table) & rows["spec"].notna()]
    made: dict[str, Json] = {}
    for spec, measure, value in zip(rows["spec"], rows["measure"], rows["accuracy"], strict=True):
        made.setdefault(spec, {"spec": spec, "key": spec, "status": "done"})[measure] = value
    return frame(made.values())


def write_tables(folder: Path, rows: Iterable[Json], pictures: int = 24) -> list[Path]:
    """The tables that a run writes of its rows."""
    return write_made(folder, all_tables(trial_lines(in_order(rows))), pictures)


def cell(made: Table, row: str, column: str) -> Cell:
    (panel,) = made.panels
    return panel.cells[row, column]


def derived(*chains: str) -> list[Json]:
    """Rows of `clean` and `lsp`; rows of `iss` have a winner a seed."""
    winners = iter(("jpeg", "bdr", "jpeg", "bdr", "grayscale", "bdr"))
    return [
        trial(
            TOY.format(attack, chain, "supervised", seed),
            0.5 + seed / 100,
            winner=next(winners) if chain == "iss" else None,
        )
        for chain in chains
        for attack in ("clean", "lsp")
        for seed in range(3)
    ]


def learners(values: dict[str, tuple[float | None, ...]]) -> list[Json]:
    rows = []
    for name, accuracies in values.items():
        for seed, acc in enumerate(accuracies):
            status = "failed" if acc is None else "done"
            rows.append(trial(TOY.format("lsp", "standard", name, seed), acc, status=status))
    return rows


def grid() -> list[Json]:
    values = {
        ("clean", "standard"): (0.9, 0.9),
        ("clean", "grayscale"): (0.8, 0.84),
        ("lsp", "standard"): (0.12, 0.14),
        ("lsp", "grayscale"): (0.5, 0.6),
        ("lsp(patch=4)", "standard"): (0.3, 0.3),
        ("lsp(patch=4)", "grayscale"): (0.7, 0.7),
    }
    return [
        trial(TOY.format(a, d, "supervised", s), acc)
        for (a, d), accuracies in values.items()
        for s, acc in enumerate(accuracies)
    ]
