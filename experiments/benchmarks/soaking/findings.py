"""What a round has otherwise than the undisturbed run: a line for each."""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from same_runs import outcome, rows_of
from soaking.rounds import Round

from raygrid.tracking.mlflow import store_uri
from raygrid.tracking.mlflow.client import KEY_TAG, PARENT_TAG, MlflowExperiment

Json = dict[str, Any]
GRACE = 60.0
"""Seconds that processes have to end after the last driver."""


def findings(round_: Round, reference: dict[str, Json], grace: float = GRACE) -> Iterator[str]:
    """A line for everything that is not as it was without faults.

    reference: the undisturbed run's rows by spec. grace: seconds that processes have to end.
    """
    rows = rows_of(round_.out)
    yield from _other_rows(round_.out, rows, reference)
    yield from trained_again(_objects(round_.marks), rows)
    keys = {row["key"] for row in rows.values()}
    yield from tracked(round_.out, keys)
    yield from (f"process {told} is left" for told in round_.left_behind(grace))


def _other_rows(out: Path, rows: dict[str, Json], reference: dict[str, Json]) -> Iterator[str]:
    """Trials with more or fewer than one row that says done, and rows of another content."""
    ended: Counter[str] = Counter()
    for line in _objects(out / "results.jsonl"):
        ended[line["spec"]] += line["status"] == "done"
    for spec in sorted({*reference, *rows}):
        if ended[spec] != 1:
            yield f"{spec} has {ended[spec]} rows that say done"
        if outcome(rows.get(spec, {})) != outcome(reference.get(spec, {})):
            yield f"{spec} has another row"


def trained_again(marks: Iterable[Json], rows: dict[str, Json]) -> Iterator[str]:
    """Trials that began from their first epoch after they had ended, or went on after their row.

    marks: in the order in which they were written; see `marked.py`.
    """
    finished = {_number(spec): row["finished"] for spec, row in rows.items()}
    ended: set[int] = set()
    anew: Counter[int] = Counter()
    late: Counter[int] = Counter()
    for mark in marks:
        number = mark["trial"]
        late[number] += mark["at"] > finished.get(number, mark["at"])
        if mark["event"] == "end":
            ended.add(number)
        elif mark["epoch"] == 0:
            anew[number] += number in ended
    for number in sorted(ended):
        if anew[number]:
            yield f"trial {number} was trained to its end and then {anew[number]} times anew"
        if late[number]:
            yield f"trial {number} went on for {late[number]} marks after its row was made"
    for number in sorted(set(finished) - ended):
        yield f"trial {number} has a row and was never trained to its end"


def _number(spec: str) -> int:
    """The number of a trial, from its spec."""
    found = re.search(r"marked\(trial=(\d+)\)", spec)
    assert found is not None, spec
    return int(found[1])


def _objects(path: Path) -> Iterator[Json]:
    """The lines of a file that are JSON objects; a fault may have left half a line, or nothing."""
    if not path.exists():
        return
    for line in path.read_bytes().splitlines():
        with contextlib.suppress(ValueError):
            yield json.loads(line)


def tracked(out: Path, keys: set[str]) -> Iterator[str]:
    """What MLflow has otherwise than one finished run a key under one finished parent."""
    experiment = MlflowExperiment.of(out, store_uri(out))
    runs = list(experiment.search())
    children = Counter(run.data.tags[KEY_TAG] for run in runs if PARENT_TAG in run.data.tags)
    parents = [run for run in runs if PARENT_TAG not in run.data.tags]
    for key in sorted({*keys, *children}):
        if children[key] != 1:
            yield f"MLflow has {children[key]} runs of {key[:12]}"
    if len(parents) != 1:
        yield f"MLflow has {len(parents)} parents"
    for run in runs:
        if run.info.status != "FINISHED":
            yield f"MLflow's run {run.info.run_name} is {run.info.status}"
