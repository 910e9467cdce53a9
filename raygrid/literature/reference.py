"""The numbers that the papers printed, by paper and table, and the trials that they belong to.

The files of `data/` are kept as they were written down; `names` turns their ids into raygrid's.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from raygrid.core.errors import SpecError, unknown
from raygrid.core.spec import Part, TrialSpec
from raygrid.literature import toxic
from raygrid.literature.made import made_by
from raygrid.literature.names import METRIC_NAMES, PAPER_NAMES, SIX_LEARNERS, map_row
from raygrid.literature.questions import QUESTIONS, PrintedQuestion, ReferenceRow, questions_of

if TYPE_CHECKING:
    import pandas as pd


@cache
def printed_rows() -> tuple[ReferenceRow, ...]:
    """All rows as printed (text), with these fields added.

    cell: its spec under the names that papers share, also where it is derived (`worst`, `iss`);
        None where it is no cell of a grid. made: the same with what the paper really ran.
    spec: `made` where that is a trial; reason: why there is no spec, else None.
    measure: what of the trial's row it is, else None; accuracy, accuracy_std: fractions, None
        where there is none; suspect: bool. remarks: those of the note that say more than the row's
        other columns do (`restated`).
    """
    return tuple(_mapped(row) for paper in PAPER_NAMES for row in _lines_of(paper))


def _lines_of(name: str) -> Iterator[dict[str, str]]:
    """The lines of a file of `data/`."""
    path = resources.files("raygrid.literature") / "data" / f"{name}.csv"
    yield from csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))


@cache
def restated() -> dict[tuple[str, str], str]:
    """Remarks, by paper, that need not be shown: which column of their rows says the same."""
    return {(line["paper"], line["remark"]): line["column"] for line in _lines_of("restated")}


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
        "remarks": tuple(r for r in _remarks(row["note"]) if (row["paper"], r) not in restated()),
    }


def _remarks(note: str) -> list[str]:
    return note.split("; ") if note else []


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
