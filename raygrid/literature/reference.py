"""The numbers that the papers printed, by paper and table, and the trials that they belong to.

The files of `data/` are kept as they were written down; `names` turns their ids into raygrid's.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import resources

import pandas as pd

from raygrid.core.errors import SpecError, unknown
from raygrid.core.spec import Part, TrialSpec
from raygrid.literature import toxic
from raygrid.literature.names import MEASURES, PAPERS, SIX, made_by, map_row
from raygrid.literature.questions import QUESTIONS, PrintedQuestion, questions_of


@cache
def load() -> pd.DataFrame:
    """All rows as printed (text), with these columns added.

    cell: its spec under the names that papers share, also where it is derived (`worst`, `iss`);
        None where it is no cell of a grid. made: the same with what the paper really ran.
    spec: `made` where that is a trial; reason: why there is no spec, else None.
    measure: what of the trial's row it is; accuracy, accuracy_std: fractions; suspect: bool.
    """
    folder = resources.files("raygrid.literature") / "data"
    parts = []
    for paper in PAPERS:
        with resources.as_file(folder / f"{paper}.csv") as path:
            parts.append(pd.read_csv(path, dtype=str, keep_default_na=False))
    rows = pd.concat(parts, ignore_index=True)
    mapped = [map_row({str(k): v for k, v in row.items()}) for row in rows.to_dict("records")]
    rows["cell"] = [None if axes is None else str(axes) for axes, _ in mapped]
    made = zip(rows["paper"], mapped, strict=True)
    rows["made"] = [
        None if axes is None else str(made_by(paper, axes)) for paper, (axes, _) in made
    ]
    rows["reason"] = [reason for _, reason in mapped]
    rows["spec"] = rows["made"].where(rows["reason"].isna(), None)
    rows["measure"] = rows["metric"].map(MEASURES)
    percent = rows["unit"] == "percent"
    for new, old in (("accuracy", "value"), ("accuracy_std", "std")):
        rows[new] = (pd.to_numeric(rows[old]) / 100).round(6).where(percent)
    rows["suspect"] = rows["note"].str.contains("suspect:", regex=False)
    return rows


def specs_of(paper: str, table: str) -> list[str]:
    """The trials of a printed table, in its order, each once; raises SpecError for unknown names.

    Cells over several trials that no defense derives come out as these: `worst` as the six
    learners. Numbers that are asked of trials (`printed_questions`) come out as these too.
    """
    made = _rows_of(paper, table)["made"].dropna()
    found = dict.fromkeys(spec for cell in made for spec in _trials(cell))
    for each in printed_questions(paper, table):
        found.update((str(spec), None) for spec in each.about)
    return list(found)


def printed_questions(paper: str, table: str) -> list[PrintedQuestion]:
    """The numbers of a printed table that no row of a trial holds; as `specs_of`."""
    rows = _rows_of(paper, table).astype(str)
    return list(
        questions_of([{str(k): v for k, v in row.items()} for row in rows.to_dict("records")])
    )


def _rows_of(paper: str, table: str) -> pd.DataFrame:
    if paper not in PAPERS:
        raise SpecError(unknown("paper", paper, PAPERS))
    if table not in tables_of(paper):
        raise SpecError(unknown(f"table with trials of {paper}", table, tables_of(paper)))
    rows = load()
    return rows[(rows["paper"] == paper) & (rows["table"] == table)]


def _trials(cell: str) -> Iterator[str]:
    spec = TrialSpec.parse(cell)
    if spec.architecture.name == toxic.MEAN:
        yield from (str(spec.replace(architecture=a)) for a in toxic.members(spec.architecture))
    elif spec.learner.name == "worst":
        yield from (str(spec.replace(learner=Part(name))) for name in SIX)
    else:
        yield cell


def tables_of(paper: str) -> list[str]:
    """The tables of a paper with a trial, or a question to one, in the order of the file."""
    rows = load()
    answered = [metric for each in QUESTIONS.values() for metric in each.metrics]
    known = rows["cell"].notna() | rows["metric"].isin(answered)
    return list(rows[(rows["paper"] == paper) & known]["table"].unique())
