"""What the parent run of a grid says: its tables as text, its findings as numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from raygrid.core.errors import SpecError
from raygrid.core.labels import short
from raygrid.tracking.mlflow.facts import (
    TAG_LENGTH,
    TRIAL_METRICS,
    params_of,
    rounded,
    safe_name,
    shortened,
)
from raygrid.trials import contest, privileges

SHOWN_TABLES = ("defense.md", "transfer.md", "worst-learner.md")
"""The tables of the description, in this order."""
SETTING_AXES = ("dataset", "protocol", "architecture", "learner", "poison_ratio", "defense")
MORE_TABLES_NOTE = "\n\nThe rest is among the artifacts, in `tables`.\n"


TABLE_FINDINGS = {
    "best_defense": ("defense.csv", "defense"),
    "worst_learner": ("worst-learner.csv", "learner"),
}
"""The table that holds a finding, and the axis whose highest accuracy it is: of an attack, the
defense that helps most and the learner that is harmed least."""


def description(files: Iterable[Path], links: Iterable[str] = ()) -> str:
    """The tables of a grid in Markdown, published beside measured, within MLflow's limit.

    files: of the grid's tables. links: lines that stand first. Whole tables of a panel are left
    out at the end, with a word that says so.
    """
    named = {file.name: file for file in files}
    texts = [
        named[name].read_text(encoding="utf-8")
        for name in SHOWN_TABLES
        if name in named and named[name].exists()
    ]
    said = "\n".join(links)
    for block in (block for text in texts for block in _blocks(text)):
        if len(said) + len(block) + len(MORE_TABLES_NOTE) > TAG_LENGTH:
            return said + MORE_TABLES_NOTE
        said += f"\n\n{block}"
    return said.strip() + "\n"


def _blocks(text: str) -> list[str]:
    """The head of a table with its first panel, then each other panel."""
    first, *others = text.strip().split("\n\n## ")
    panels = [f"## {panel}" for panel in others]
    return ["\n\n".join([first, *panels[:1]]), *panels[1:]]


def findings(files: Iterable[Path]) -> tuple[dict[str, float], dict[str, str]]:
    """Metrics and tags of the best defense and the worst learner of each attack.

    The metric `best_defense/<attack>` is its accuracy, the tag `raygrid.best_defense.<attack>` its
    name. Where a table has several settings, they stand behind the attack.
    """
    named = {file.name: file for file in files}
    metrics: dict[str, float] = {}
    tags: dict[str, str] = {}
    for name, (table, axis) in TABLE_FINDINGS.items():
        file = named.get(table)
        if file is None or not file.exists():
            continue
        for label, (value, chosen) in _chosen(file, axis).items():
            metrics[safe_name(f"{name}/{label}")] = value
            tags[safe_name(f"raygrid.{name}.{label}")] = shortened(chosen, TAG_LENGTH)
    return metrics, tags


def _chosen(file: Path, axis: str) -> dict[str, tuple[float, str]]:
    """The value and the name that are chosen, by the attack and what tells its setting apart."""
    import pandas as pd

    cells = pd.read_csv(file).to_dict("records")
    names = ["attack", *(name for name in SETTING_AXES if name != axis)]
    groups: dict[tuple[str, ...], list[tuple[float, str]]] = {}
    for cell in (cell for cell in cells if _is_candidate(cell, axis)):
        key = tuple(str(cell.get(name)) for name in names)
        groups.setdefault(key, []).append((float(cell["value"]), str(cell[axis])))
    chosen = {}
    for key, pairs in groups.items():
        entered = [pair for pair in pairs if axis != "defense" or contest.is_defense(pair[1])]
        if len(pairs) > 1 and entered:
            chosen[key] = max(entered)
    attacks = short(list(dict.fromkeys(attack for attack, *_ in chosen)))
    varying = [n for n in range(1, len(names)) if len({key[n] for key in chosen}) > 1]
    labels = {key: " - ".join([attacks[key[0]], *(key[n] for n in varying)]) for key in chosen}
    return {labels[key]: pair for key, pair in chosen.items()}


def _is_candidate(cell: Mapping[Hashable, Any], axis: str) -> bool:
    """Whether a cell of an attack has a number, sums up no others and knew no more than its due."""
    value = cell.get("value")
    # The latter of methods of one's own, which the process that writes to MLflow does not know.
    plain = cell.get(axis) not in contest.SUM_COLUMNS and cell.get("selection") != "test"
    fair = not privileges.of_defense(str(cell.get("defense", "")))
    attacks = cell.get("attack") not in contest.CONTROLS
    return plain and fair and attacks and isinstance(value, int | float) and math.isfinite(value)


DESCRIPTION_COLUMNS = ("status", *TRIAL_METRICS)


def _rounded(value: Any) -> Any:
    return rounded(value) if isinstance(value, float) else value


def tidy(rows: Iterable[Mapping[str, Any]], names: Mapping[str, str]) -> str:
    """The rows of trials as a table that MLflow shows: a line a trial, its axes and accuracies.

    Of several rows of a trial the last one counts; columns that no row fills are left out. names:
    specs to what trials are called. The text is JSON with columns and data, as `log_table` has it.
    """
    lines = {}
    for row in rows:
        spec = str(row["spec"])
        measured = {name: _rounded(row.get(name)) for name in DESCRIPTION_COLUMNS}
        with suppress(SpecError):  # of another version: its line has no axes
            measured |= params_of(spec, row.get("resolved") or {})
        lines[spec] = {"trial": names.get(spec, spec), **measured}
    filled = (name for line in lines.values() for name, value in line.items() if value is not None)
    columns = list(dict.fromkeys(filled))
    data = [[line.get(name) for name in columns] for line in lines.values()]
    return json.dumps({"columns": columns, "data": data})
