"""The verbs on grids: plan, run, read results, set out tables, look up published numbers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raygrid.api.grid_arguments import Specs, checked_listeners, listed, one_by_one, run_options
from raygrid.api.run_grid import exclusive, make_plan, run_planned
from raygrid.core.errors import DataError, RaygridError, SpecError
from raygrid.core.flags import checked_path
from raygrid.core.plugins import load_plugins
from raygrid.core.registry import require
from raygrid.core.spec import TrialSpec
from raygrid.engine import grid as grids
from raygrid.engine.events import Listener
from raygrid.engine.grid import Plan, Skip
from raygrid.storage.results import log_of
from raygrid.storage.store import remove_unused
from raygrid.tracking.listeners import check_listeners, listeners_of
from raygrid.trials.result import Result
from raygrid.trials.trial import Trial

if TYPE_CHECKING:
    import pandas as pd

    from raygrid.literature.lookup import Finding
    from raygrid.reports.tables.layout import Table

log = logging.getLogger(__name__)
SUMMARY_COLUMNS = ("attack", "defense", "architecture", "learner", "poison_ratio", "seed", "status")


@dataclass(frozen=True)
class Run:
    """The rows of a grid, for a notebook: `.df`, `.table(kind)`, `.failed`, `.diverged`.

    results: one `Result` a trial. out: the folder that holds them. plan: what the grid came to,
    None if the rows were read from a folder. failed_attempts: failed repeats of trials that an
    earlier run had finished and that ran again because `keep` wants more of them.
    """

    results: tuple[Result, ...]
    out: Path
    plan: Plan | None = None
    failed_attempts: tuple[Result, ...] = ()

    @property
    def df(self) -> pd.DataFrame:
        """One row a trial: its axes, accuracies (fractions) and status."""
        from raygrid.reports.tables.frame import frame

        return frame(result.row() for result in self.results)

    @property
    def failed(self) -> tuple[Result, ...]:
        """The rows whose trial failed, with their `error`; they run again with the next run."""
        return (*(r for r in self.results if r.status == "failed"), *self.failed_attempts)

    @property
    def diverged(self) -> tuple[Result, ...]:
        """The rows whose numbers stopped being finite, with their `error`; that is their result."""
        return tuple(r for r in self.results if r.status == "diverged")

    def table(self, kind: str = "defense", metric: str = "final_acc") -> Table:
        """A table of these rows, published beside measured; see the function `table`."""
        return table(self, kind, metric)

    def __len__(self) -> int:
        return len(self.results)

    def __repr__(self) -> str:
        return f"<{self._words()}>"

    def _words(self) -> str:
        done = sum(result.status == "done" for result in self.results)
        kinds = {"failed": self.failed, "diverged": self.diverged}
        lost = "".join(f", {len(found)} {name}" for name, found in kinds.items() if found)
        skips = self.plan.skips if self.plan is not None else []
        left = f", {len(skips)} skipped (the first: {skips[0].reason})" if skips else ""
        return f"{done} of {len(self.results)} trials done{lost}{left}, in {self.out}"

    def _repr_html_(self) -> str:
        """What a notebook shows: one line and the first rows."""
        rows = self.df
        if rows.empty:
            return f"<p>{_escaped(self._words())}</p>"
        names = [n for n in (*SUMMARY_COLUMNS, "final_acc", "peak_acc") if n in rows]
        shown = rows[names].to_html(max_rows=20, index=False, float_format="{:.3f}".format)
        return f"<p>{_escaped(self._words())}</p>{shown}"


def _escaped(text: str) -> str:
    import html

    return html.escape(text)


def plan(specs: Specs, *, data: str | Path | None = None) -> Plan:
    """What a grid comes to, before anything runs.

    specs: a `Grid`, a spec string, a `TrialSpec`, a `Trial` of a plan, or several of them. data:
    the folder with the datasets' files; without it no data are looked at, and keys are not those of
    a run.

    Returns a `Plan`: `.trials` to train, `.derived` rows that follow from others, `.skips` with
    their reasons, `.artifacts`. Raises SpecError that lists every fault, data that are missing
    among them.

    >>> from raygrid import Grid
    >>> found = plan(Grid(attacks=["clean", "lsp"], defenses=["standard", "jpeg"]))
    >>> len(found.trials), len(found.skips)
    (4, 0)
    """
    skips: list[Skip] = []
    found = _planned(listed(specs, skips), None if data is None else checked_path("data", data))
    found.skips += skips
    return found


def _planned(specs: list[TrialSpec | str], data: Path | None) -> Plan:
    if data is None:
        return grids.plan(specs, None)
    import tempfile

    from raygrid.storage.store import Store
    from raygrid.trials.catalog import Catalog

    with tempfile.TemporaryDirectory() as folder:
        return grids.plan(specs, Catalog(Store(Path(folder)), data))


def run(
    specs: Specs,
    out: str | Path = "runs",
    *,
    data: str | Path = "data",
    listeners: Sequence[Listener] = (),
    **options: Any,
) -> Run:
    """Run what is not done yet of a grid; run it again to fill gaps.

    specs: a `Grid`, a spec string, a `TrialSpec`, a `Trial` of a plan, or several of them. out: the
    folder for everything that the run writes. data: the folder with the datasets' files. listeners:
    are told of everything that happens. options: fields of `Options` by name, such as
    `executor="inline"`, `keep=["weights"]`, `tracking=None` for MLflow under `out` or the address
    of one, `quiet=False` for a display of the progress (both are off by default here).

    Returns a `Run` of all rows of the grid, those of earlier runs too. Combinations of a grid that
    cannot run are skipped; a spec that cannot run is an error.
    Raises SpecError, of data that are missing too, StoreError, also where another run uses the
    folder, TrackingError or ClusterError before anything runs; a trial's own failure is a row in
    `.failed`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as out:
    ...     spec = "photo_digits(every=20)/clean/none/small_cnn/supervised/quick(epochs=1)/0"
    ...     found = run(spec, out, executor="inline")
    >>> found.df["status"].tolist(), found.failed
    (['done'], ())
    """
    chosen = run_options(out, data, {"strict": one_by_one(specs), **options})
    if chosen.driver is not None:
        raise SpecError(
            f"driver is {chosen.driver!r}, but several drivers share a grid from the command line "
            "alone: raygrid run --driver I/N"
        )
    load_plugins(chosen.imports)  # which budgets an attack of one's own takes, its class says
    check_listeners(chosen)
    told, skips = checked_listeners(listeners), list[Skip]()
    try:
        planned = make_plan(listed(specs, skips), chosen)  # faults are said before MLflow starts
        planned[0].skips += skips
        with exclusive(chosen.out.absolute()), listeners_of(chosen) as wanted:
            outcome = run_planned(planned, chosen, *wanted, *told)
    except RaygridError:
        remove_unused()
        raise
    return Run(tuple(outcome.results), chosen.out, outcome.plan, tuple(outcome.failed_attempts))


def results(out: str | Path = "runs") -> Run:
    """The rows of a run folder, finished or not; nothing is run.

    out: the folder of a run.

    Returns a `Run`; lines that cannot be read are logged as a warning. Raises DataError if the
    folder holds no results.

    >>> import tempfile
    >>> spec = "photo_digits(every=20)/clean/none/small_cnn/supervised/quick(epochs=1)/0"
    >>> with tempfile.TemporaryDirectory() as out:
    ...     _ = run(spec, out, executor="inline")
    ...     found = results(out)
    >>> [result.status for result in found.results]
    ['done']
    """
    folder = checked_path("out", out)
    written = log_of(folder)
    if not written.path.exists():
        raise DataError(f"{folder} holds no results.jsonl; give the folder of a run")
    if written.warning():
        log.warning(written.warning())
    return Run(tuple(Result.from_row(row) for row in written.rows()), folder)


def table(
    source: Run | str | Path | pd.DataFrame, kind: str = "defense", metric: str = "final_acc"
) -> Table:
    """A table of a run, published beside measured.

    source: a `Run`, the folder of one, or the frame of one (`Run.df`). kind: `defense`,
    `transfer`, `worst-learner`, `ratio`, `budget`, `jpeg-quality`, `peak`, `success`, `detection`.
    metric: what is measured, `final_acc` or `peak_acc` among others.

    Returns a `Table`; `raygrid.reports.tables` renders it as text, Markdown, CSV or LaTeX. Raises
    SpecError for an unknown kind or metric.

    >>> import tempfile
    >>> spec = "photo_digits(every=20)/clean/none/small_cnn/supervised/quick(epochs=1)/0"
    >>> with tempfile.TemporaryDirectory() as out:
    ...     made = table(run(spec, out, executor="inline"), "defense")
    >>> made.panels[0].rows, made.panels[0].columns
    (('clean',), ('none',))
    """
    from raygrid.reports.tables import kinds
    from raygrid.reports.tables.trial_lines import trial_lines

    rows: Any = results(source) if isinstance(source, str | Path) else source
    if isinstance(rows, Run):
        return kinds.table(kind, trial_lines(r.row() for r in rows.results), metric)
    from raygrid.reports.tables.frame import lines_of

    framed = hasattr(rows, "columns") and hasattr(rows, "to_dict")  # without loading pandas
    allowed = "a Run, the folder of one, or the frame of one (Run.df)"
    require(framed, f"source is {rows!r:.60}, allowed is {allowed}")
    return kinds.table(kind, lines_of(rows), metric)


def published(spec: TrialSpec | Trial | str, measure: str = "final_acc") -> Finding | None:
    """What the papers printed for a trial, the best match first; None if none has it.

    spec: as of a trial; its seed does not matter. measure: `final_acc`, `peak_acc`, ...
    Returns a `Finding`: `.best.value` is a fraction, `.best.cite()` says paper and table, `.apart`
    what sets it apart from the spec, false where nothing does, in words as text. Raises SpecError
    for a spec that cannot be read, and for unknown methods and measures.

    >>> found = published("cifar10/em_apb/jpeg/resnet18/supervised/apbench/0")
    >>> found.best.cite().split()[0], found.best.value > 0.5
    ('apbench', True)
    """
    from raygrid.literature.lookup import check_asked, find

    given: Any = spec.spec if isinstance(spec, Trial) else spec
    whole = TrialSpec.parse(given) if isinstance(given, str) else given
    known = isinstance(whole, TrialSpec)
    require(known, f"spec is {given!r:.60}, allowed is a spec string or a TrialSpec")
    check_asked(whole, measure)
    return find(whole, measure)
