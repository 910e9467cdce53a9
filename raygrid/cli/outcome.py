"""What is printed once a run is over: findings and a table, what failed, where everything is."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

from raygrid.api.run_grid import Outcome
from raygrid.core.options import Options
from raygrid.core.secrets import shown
from raygrid.core.text import first_line
from raygrid.storage.results import REPORT_FILE


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """The same as JSON values."""
    return {
        "submitted": outcome.submitted,
        "seconds": round(outcome.seconds, 2),
        "results": [r.row() for r in outcome.results],
        "failed_attempts": [r.row() for r in outcome.failed_attempts],
        "skips": [{"spec": s.spec, "reason": s.reason} for s in outcome.plan.skips],
        "files": [str(path) for path in outcome.files],
    }


def typed(command: str) -> str:
    """A command as the shell finds it: what `uv run` brings along is on no path of it."""
    return f"uv run {command}" if "UV" in os.environ else command


def show_found(outcome: Outcome, out: Path) -> None:
    """The fullest table of attacks and defenses, and the lines on what stands out."""
    from raygrid.reports.analysis.headlines import fullest, headlines
    from raygrid.reports.tables import kinds, render
    from raygrid.reports.tables.trial_lines import in_order, trial_lines

    source = kinds.CellSource(trial_lines(in_order(result.row() for result in outcome.results)))
    made = kinds.table("defense", source)
    first = fullest(made.panels)
    render.show(replace(made, panels=() if first is None else (first,)))
    for line in headlines(source):
        print(f"- {line}")
    if len(made.panels) > 1:
        more = len(made.panels) - 1
        elsewhere = "" if out == Options().out else f" --out {shlex.quote(str(out))}"
        command = typed(f"raygrid table defense{elsewhere}")
        print(f"{more} more table{'s' * (more > 1)} of this kind: {command}")


def print_outcome(outcome: Outcome, options: Options) -> None:
    """What was found in a few lines and one table, what failed, where everything is."""
    show_found(outcome, options.out)
    for result in (*outcome.results, *outcome.failed_attempts):
        if result.status in ("failed", "diverged"):
            print(f"{result.status.upper()} {result.spec}: {first_line(result.error)}")
    print(
        f"{outcome.submitted} trials run in {outcome.seconds:.0f} s; all tables: "
        f"{options.out / 'tables'}"
    )
    print(f"one page to sort, filter and open: {options.out / REPORT_FILE}")
    for line in [] if options.tracking == "off" else how_to_compare(options):
        print(line)


def how_to_compare(options: Options) -> list[str]:
    """Where the runs are in MLflow: a server to open, or a database and the command that shows it.

    The database of the folder is named by its path as it was given; what an address hides, a
    password, is not shown.
    """
    from raygrid.tracking.mlflow.address import SERVER_SCHEMES, sqlite_uri, store_uri
    from raygrid.tracking.mlflow.view import VIEW_QUERY

    uri = store_uri(options.out, options.tracking)
    if uri.startswith(SERVER_SCHEMES):
        return [f"compare runs: {shown(uri)}"]
    own = uri == store_uri(options.out, sqlite_uri(options.out / "mlflow.db"))
    database = shlex.quote(sqlite_uri(options.out / "mlflow.db") if own else shown(uri))
    # A database of a folder has MLflow's default experiment, 0, and then raygrid's own.
    page = f"/#/experiments/1/runs?{VIEW_QUERY}" if own else ""
    return [
        f"compare runs: {typed(f'mlflow ui --backend-store-uri {database}')}",
        f"then open http://127.0.0.1:5000{page}",
    ]
