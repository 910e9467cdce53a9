"""The front of the scripts that reproduce the tables of one paper."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import get_args

from raygrid import tables
from raygrid.arguments import add_fleet, add_options, add_running, fleet_of, options_of
from raygrid.errors import SpecError
from raygrid.experiment import guarded, place_and_run, show_plan
from raygrid.grid import plan
from raygrid.published import tables_of
from raygrid.reproduce import Job, Scale, beside, job
from raygrid.run import Options
from raygrid.store import ResultLog

QUICK = (
    "Scale quick: stand-ins on a small dataset, a small network and short attacks at twice the "
    "printed budget; in brackets what the paper printed for the real thing."
)


def main(
    paper: str,
    description: str,
    kinds: Sequence[str],
    tables: Sequence[str] = (),
    argv: Sequence[str] | None = None,
) -> int:
    """Parse the command line, plan or run the table.

    kinds: what to print of the results. tables: those that the script is for, all by default.
    """
    args = parser_of(description, list(tables) or tables_of(paper)).parse_args(argv)
    return guarded(lambda: _run(paper, kinds, args))


def parser_of(description: str, known: Sequence[str]) -> argparse.ArgumentParser:
    """The options that the scripts of all papers have."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    only = known[0] if len(known) == 1 else None
    parser.add_argument("--table", required=only is None, default=only, choices=known)
    parser.add_argument("--scale", "--tier", default="quick", choices=get_args(Scale))
    parser.add_argument("--dataset", help="only this dataset of the table")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds, from 0")
    parser.add_argument("--dry-run", action="store_true", help="print the plan, run nothing")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_fleet(parser)
    add_running(parser)
    add_options(parser)
    return parser


def _run(paper: str, kinds: Sequence[str], args: argparse.Namespace) -> int:
    wanted = job(paper, args.table, args.scale, args.dataset, range(args.seeds))
    status, options = plan_or_run(wanted, paper, args)
    if not args.dry_run and args.scale != "quick":  # whose run prints no published numbers
        kinds = [kind for kind in kinds if kind != "defense"]
    if not args.json:
        show(wanted, options, kinds, paper if args.scale == "quick" else None)
    return status


def plan_or_run(wanted: Job, paper: str, args: argparse.Namespace) -> tuple[int, Options]:
    """Plan or run what a table needs; says what is not there, raises SpecError if nothing is."""
    for name in wanted.missing:
        print(f"left out, not there: {name}", file=sys.stderr)
    if not wanted.specs:
        raise SpecError(f"nothing of table {args.table} can be run")
    options = options_of(args, name=f"{paper}-{args.table}-{args.scale}")
    if args.dry_run:
        return show_plan(wanted.specs, options, args.json, fleet_of(args)), options
    return place_and_run(wanted.specs, options, args), options


def several(wanted: Job) -> list[str]:
    """What to say of trials that stand for more than one printed one; nothing if there are none."""
    if not wanted.shared:
        return []
    names = "; ".join(wanted.shared)
    return [f"One trial stands for several printed ones, without their numbers: {names}."]


def show(
    wanted: Job, options: Options, kinds: Iterable[str], quick: str | None, note: str = QUICK
) -> None:
    """Published beside measured, for the trials of the table that have a row.

    quick: the paper whose numbers stand beside those of its stand-ins, at that scale. note: what
    the stand-ins are.
    """
    planned = plan(wanted.specs, None)
    names = {str(trial.spec) for trial in (*planned.trials, *planned.derived)}
    log = ResultLog(options.out.absolute() / "results.jsonl")
    trials = tables.frame(row for row in log.rows() if row["spec"] in names)
    print(f"{int((trials['status'] == 'done').sum())} of {len(names)} rows are there")
    for kind in kinds:
        made = tables.table(kind, trials)
        if quick and made.panels:
            panels = tuple(beside(panel, quick, wanted.printed) for panel in made.panels)
            caption = " ".join([made.caption, note, *several(wanted)])
            made = replace(made, panels=panels, caption=caption)
        if made.panels:
            tables.show(made)
