"""The front of the scripts that reproduce the tables of one paper."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from typing import get_args

from rich.console import Console

from raygrid.arguments import add_options, add_running, options_of
from raygrid.errors import SpecError
from raygrid.experiment import guarded, place_and_run, show_plan
from raygrid.grid import plan
from raygrid.published import tables_of
from raygrid.reproduce import Job, Scale, job
from raygrid.run import Options
from raygrid.store import ResultLog
from raygrid.tables import frame, table, terminal


def main(
    paper: str, description: str, kinds: Sequence[str], argv: Sequence[str] | None = None
) -> int:
    """Parse the command line, plan or run the table; kinds: what to print of the results."""
    args = parser_of(description, tables_of(paper)).parse_args(argv)
    return guarded(lambda: _run(paper, kinds, args))


def parser_of(description: str, tables: Sequence[str]) -> argparse.ArgumentParser:
    """The options that the scripts of all papers have."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", required=True, choices=tables)
    parser.add_argument("--scale", default="quick", choices=get_args(Scale))
    parser.add_argument("--dataset", help="only this dataset of the table")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds, from 0")
    parser.add_argument("--dry-run", action="store_true", help="print the plan, run nothing")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_running(parser)
    add_options(parser)
    return parser


def _run(paper: str, kinds: Sequence[str], args: argparse.Namespace) -> int:
    wanted = job(paper, args.table, args.scale, args.dataset, range(args.seeds))
    for name in wanted.missing:
        print(f"left out, not there: {name}", file=sys.stderr)
    if not wanted.specs:
        raise SpecError(f"nothing of table {args.table} can be run")
    options = options_of(args, name=f"{paper}-{args.table}-{args.scale}")
    if args.dry_run:
        status = show_plan(wanted.specs, options, args.json)
    else:
        status = place_and_run(wanted.specs, options, args)
        kinds = [kind for kind in kinds if kind != "defense"]  # printed by the run
    if not args.json:
        show(wanted, options, kinds)
    return status


def show(wanted: Job, options: Options, kinds: Iterable[str]) -> None:
    """Published beside measured, for the trials of the table that have a row."""
    planned = plan(wanted.specs, None)
    names = {str(trial.spec) for trial in (*planned.trials, *planned.derived)}
    log = ResultLog(options.out.absolute() / "results.jsonl")
    trials = frame(row for row in log.rows() if row["spec"] in names)
    print(f"{int((trials['status'] == 'done').sum())} of {len(names)} rows are there")
    for kind in kinds:
        made = table(kind, trials)
        if made.panels:
            Console().print(terminal(made))
