"""The numbers that the papers printed, by paper and table, and the trials that they belong to.

The files of `data/` are kept as they were written down; `names` turns their ids into raygrid's.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from raygrid.core.errors import SpecError, unknown
from raygrid.core.spec import Part, TrialSpec
from raygrid.literature import toxic
from raygrid.literature.made import made_by
from raygrid.literature.names import METRIC_NAMES, PAPER_NAMES, SIX_LEARNERS, map_row
from raygrid.literature.questions import QUESTIONS, PrintedQuestion, questions_of

if TYPE_CHECKING:
    import pandas as pd


ReferenceRow = dict[str, Any]


@cache
def printed_rows() -> tuple[ReferenceRow, ...]:
    """All rows as printed (text), with these fields added.

    cell: its spec under the names that papers share, also where it is derived (`worst`, `iss`);
        None where it is no cell of a grid. made: the same with what the paper really ran.
    spec: `made` where that is a trial; reason: why there is no spec, else None.
    measure: what of the trial's row it is, else None; accuracy, accuracy_std: fractions, None
        where there is none; suspect: bool.
    """
    folder = resources.files("raygrid.literature") / "data"
    rows = []
    for paper in PAPER_NAMES:
        text = (folder / f"{paper}.csv").read_text(encoding="utf-8")
        rows += [_mapped(row) for row in csv.DictReader(io.StringIO(text))]
    return tuple(rows)


def _mapped(row: dict[str, str]) -> ReferenceRow:
    axes, reason = map_row(row)
    made = None if axes is None else str(made_by(row["paper"], axes))
    return {
        **row,
        "cell": None if axes is None else str(axes),
        "made": made,
        "reason": reason,
        "spec": made if reason is None else None,
        "measure": METRIC_NAMES.get(row["metric"]),
        "accuracy": _fraction(row["value"], row["unit"]),
        "accuracy_std": _fraction(row["std"], row["unit"]),
        "suspect": "suspect:" in row["note"],
    }


def _fraction(text: str, unit: str) -> float | None:
    return round(float(text) / 100, 6) if text and unit == "percent" else None


def load() -> pd.DataFrame:
    """`printed_rows` as a frame; a number that is not there is NaN."""
    import pandas as pd

    return pd.DataFrame(printed_rows()).astype({"accuracy": float, "accuracy_std": float})


def specs_of(paper: str, table: str) -> list[str]:
    """The trials of a printed table, in its order, each once; raises SpecError for unknown names.

    Cells over several trials that no defense derives come out as these: `worst` as the six
    learners. Numbers that are asked of trials (`printed_questions`) come out as these too.
    """
    made = (row["made"] for row in _rows_of(paper, table))
    found = dict.fromkeys(spec for cell in made if cell for spec in _trials(cell))
    for each in printed_questions(paper, table):
        found.update((str(spec), None) for spec in each.about)
    return list(found)


def printed_questions(paper: str, table: str) -> list[PrintedQuestion]:
    """The numbers of a printed table that no row of a trial holds; as `specs_of`."""
    return list(questions_of(_rows_of(paper, table)))


def _rows_of(paper: str, table: str) -> list[ReferenceRow]:
    if paper not in PAPER_NAMES:
        raise SpecError(unknown("paper", paper, PAPER_NAMES))
    if table not in tables_of(paper):
        raise SpecError(unknown(f"table with trials of {paper}", table, tables_of(paper)))
    return [row for row in printed_rows() if (row["paper"], row["table"]) == (paper, table)]


def _trials(cell: str) -> Iterator[str]:
    spec = TrialSpec.parse(cell)
    if spec.architecture.name == toxic.MEAN_OF_VICTIMS:
        yield from (str(spec.replace(architecture=a)) for a in toxic.members(spec.architecture))
    elif spec.learner.name == "worst":
        yield from (str(spec.replace(learner=Part(name))) for name in SIX_LEARNERS)
    else:
        yield cell


def tables_of(paper: str) -> list[str]:
    """The tables of a paper with a trial, or a question to one, in the order of the file."""
    answered = [metric for each in QUESTIONS.values() for metric in each.metrics]
    own = (row for row in printed_rows() if row["paper"] == paper)
    known = (row["table"] for row in own if row["cell"] or row["metric"] in answered)
    return list(dict.fromkeys(known))
