"""What the tests of printed numbers share: trials of a toy world, numbers as if printed."""

from __future__ import annotations

from pathlib import Path

from raygrid.api.run_grid import run_grid
from raygrid.core.options import LEFT_BY_TRIALS
from raygrid.core.spec import TrialSpec
from raygrid.literature.questions import PrintedQuestion
from raygrid.literature.reference import printed_questions
from raygrid.reports.analysis.records import Records
from raygrid.reports.tables.cells import Cell
from raygrid.reports.tables.layout import Table
from raygrid.reproduce.questions import FinishedTrials
from raygrid.storage.store import Store
from tests.finished import LSP as LSP
from tests.finished import SPECS, inline

CLEAN = SPECS[:2]
WHERE = "dots/{}/{}/small_cnn/supervised/brief/{}"
JPEG = [WHERE.format("lsp(budget=l2:3.0)", f"jpeg(quality={q})", 0) for q in (20, 50)]
VAE = WHERE.format("lsp(budget=l2:3.0)", "vae(epochs=1, limit=2.0)", 0)


def run_evidence(out: Path) -> FinishedTrials:
    """Trials in a toy world that left everything; those of `finished.py` may lie there already."""
    found = run_grid([*SPECS, *JPEG, VAE], inline(out, LEFT_BY_TRIALS))
    assert not found.failed
    rows = {result.spec: result.row() for result in found.results}
    return FinishedTrials(Records(Store(out / "store"), out / "data"), rows)


def question(
    name: str, metric: str, about: list[str], value: float, **changes: str
) -> PrintedQuestion:
    """A number as if a paper had printed it."""
    places = {"row": "lsp", "column": "here", "on": "", **changes}
    return PrintedQuestion(
        question=name,
        paper="dvae",
        table="99",
        dataset="dots",
        metric=metric,
        about=tuple(map(TrialSpec.parse, about)),
        value=value,
        std=None,
        suspect=False,
        remarks=(),
        **places,
    )


def only(tables: list[Table]) -> Cell:
    """The cell of a table of one."""
    (made,) = tables
    ((_, cell),) = made.panels[0].cells.items()
    return cell


def first(paper: str, table: str, row: str, column: str, metric: str = "") -> PrintedQuestion:
    found = printed_questions(paper, table)
    return next(a for a in found if (a.row, a.column) == (row, column) and metric in ("", a.metric))
