"""The front of `raygrid run`, `raygrid reproduce` and the scripts under `experiments/`.

Scales, axes, dry run, run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from raygrid.api.run_grid import exclusive, make_plan, run_planned
from raygrid.api.share_grid import exclusive_tables, share_grid
from raygrid.cli.consent import ask_if_long
from raygrid.cli.guard import guarded
from raygrid.cli.options import (
    CommandParser,
    add_axes,
    add_fleet,
    add_options,
    add_running,
    fleet_of,
    options_of,
    with_axes,
)
from raygrid.cli.outcome import outcome_json, print_outcome
from raygrid.cli.plan import kept_text, show_plan, skipped_text
from raygrid.core.errors import ClusterError, DataError, SpecError
from raygrid.core.options import Options
from raygrid.core.plugins import load_plugins
from raygrid.core.registry import require
from raygrid.core.secrets import shown
from raygrid.core.spec import TrialSpec
from raygrid.engine.grid import Grid
from raygrid.engine.grid import plan as plan_specs
from raygrid.engine.ray import submit as launch
from raygrid.engine.ray.dashboard import dashboard
from raygrid.engine.ray.homecoming import INSIDE_JOB, send_home
from raygrid.storage.results import log_of
from raygrid.tracking.listeners import check_listeners, listeners_of

NOTHING_TO_LEAVE = (
    "--detach leaves a job at a cluster to itself, and here is none that takes jobs: name one by "
    "--address http://HOST:8265, or `ray up cluster.yaml` first"
)
GridsByScale = Mapping[str, Sequence[Grid]]


def experiment_main(
    name: str, scales: GridsByScale, description: str, argv: Sequence[str] | None = None
) -> int:
    """Parse the command line of an experiment and run it; returns the exit status."""
    as_written = argparse.RawDescriptionHelpFormatter
    parser = CommandParser(description=description, formatter_class=as_written)
    parser.add_argument("--scale", choices=sorted(scales), help="size of the grid")
    parser.add_argument("--dry-run", action="store_true", help="print the plan, run nothing")
    add_fleet(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_axes(parser)
    add_running(parser)
    add_options(parser)
    args = parser.parse_args(argv)
    return guarded(lambda: _experiment(name, scales, args))


def _experiment(name: str, scales: GridsByScale, args: argparse.Namespace) -> int:
    load_plugins(tuple(args.imports))  # before budgets are joined with attacks of one's own
    args.argv = sys.argv
    place = None if args.scale else _place_for_scale(args)
    scale = args.scale or default_scale(scales, place)
    if not args.scale:  # there it would look at another machine
        args.argv = [*sys.argv, "--scale", scale]
    grids = with_axes(scales[scale], args)
    specs = specs_from_grids(grids)
    options = options_of(args, name=f"{name}-{scale}")
    if args.dry_run:
        return show_plan(specs, options, args.json, fleet_of(args))
    return place_and_run(specs, options, args, place=place)


def specs_from_grids(grids: Sequence[Grid]) -> list[TrialSpec]:
    """All points of grids; which attacks a budget of the shared axis leaves out is said."""
    specs = [spec for grid in grids for spec in grid.specs()]
    for line in dict.fromkeys(skip.reason for grid in grids for skip in grid.unmatched()):
        print(f"skipped: {line}", file=sys.stderr)
    return specs


def place_and_run(
    specs: Sequence[TrialSpec | str],
    options: Options,
    args: argparse.Namespace,
    then: Callable[[], None] = lambda: None,
    place: launch.Place | None = None,
) -> int:
    """Run here, or submit this very command to the cluster that is named or up.

    then: called where it was run, once it is over; what it writes to tables and figures comes home.
    place: where that is, for who has asked already.
    """
    place = place or decided_place(options.executor, options.address)
    if place.kind in ("here", "direct"):
        require(not args.detach, NOTHING_TO_LEAVE)
        here = replace(options, address=place.address)
        show = run_and_show if options.driver is None else share_and_show
        with reached(here), own_data(here.data):
            return show(specs, here, args.json, then)
    plan_specs(specs, None, strict=options.strict)  # faults are said here, not there
    with dashboard(place.address, place.config) as way:
        argv = getattr(args, "argv", sys.argv)
        job = launch.ClusterJob.submit(way, Path.cwd(), argv, options.name)
        where = shown(way.address)
        print(f"job {job.id} on {where}; the same command joins it again", file=sys.stderr)
        return 0 if args.detach else job.follow(options.out)


def decided_place(executor: str, address: str | None) -> launch.Place:
    """Where a command with these options runs. Raises ClusterError for a cluster that is away."""
    if executor == "inline":
        return launch.Place("here")
    return launch.decide(address, os.environ, Path.cwd())


def default_scale(scales: GridsByScale, place: launch.Place | None) -> str:
    """`small` where a cluster is named or up, `quick` elsewhere; says which, and how to choose.

    A GPU of this machine decides nothing: the first command that a person types downloads nothing
    and takes minutes.
    """
    cluster = place is not None and place.kind != "here"
    scale = "small" if cluster and "small" in scales else "quick"
    others = ", ".join(each for each in scales if each != scale)
    found = "a cluster" if cluster else "no cluster here"
    print(f"{found}: taking --scale {scale}; others are {others}", file=sys.stderr)
    return scale


def _place_for_scale(args: argparse.Namespace) -> launch.Place | None:
    """Where the command would run; None for a plan, which needs no cluster, if nobody can tell."""
    try:
        return decided_place(args.executor, args.address)
    except ClusterError:
        if args.dry_run:
            return None
        raise


@contextlib.contextmanager
def reached(options: Options) -> Iterator[None]:
    """Where MLflow and Ray are said to be, looked at before anything is written; Ray is connected.

    Raises TrackingError or ClusterError.
    """
    check_listeners(options)
    if options.address is None or options.engine != "ray":
        yield
        return
    from raygrid.engine.ray.executor import connected

    with connected(options.address):
        yield


@contextlib.contextmanager
def own_data(folder: Path) -> Iterator[None]:
    """Say beside a fault of a job on a cluster that no data are sent there, if it has none.

    Faults of specs were said where the command was typed, so what is left is of data.
    """
    try:
        yield
    except (SpecError, DataError):
        if os.environ.get(INSIDE_JOB) and not folder.exists():
            print(
                "note: this is the head of the cluster, to which no data are sent; where it has "
                "some is said by --data, or by RAYGRID_DATA where its Ray is started",
                file=sys.stderr,
            )
        raise


def share_and_show(
    specs: Sequence[TrialSpec | str],
    options: Options,
    as_json: bool,
    then: Callable[[], None] = lambda: None,
) -> int:
    """Run this driver's part of a grid; one that finds all done writes the tables of all.

    1 if any trial failed.
    """
    shared = share_grid(specs, options, listeners_of)
    if shared.others:
        count = len(shared.others)
        print(f"nothing is left for this driver; others still run {count} trials", file=sys.stderr)
        return 0
    for spec in shared.failed:
        print(f"FAILED {spec}", file=sys.stderr)
    with exclusive_tables(shared.options) as mine:
        if mine and shared.finished:
            run_and_show(shared.finished, shared.options, as_json, then)
    return 1 if shared.failed else 0


def run_and_show(
    specs: Sequence[TrialSpec | str],
    options: Options,
    as_json: bool,
    then: Callable[[], None] = lambda: None,
) -> int:
    """Run specs and print their tables; 1 if a trial failed."""
    planned = make_plan(specs, options)  # every fault is said before MLflow or Ray start
    plan, store, _ = planned
    if plan.skips and not (plan.trials or plan.derived):
        raise SpecError("\n".join(["nothing of this can be run", *skipped_text(plan)]))
    ask_if_long(plan, store, options)
    for line in [] if options.quiet else skipped_text(plan):
        print(line, file=sys.stderr)
    if options.keep and not options.quiet:
        print(f"kept: {kept_text(plan, options.keep)}", file=sys.stderr)
    with exclusive(options.out.absolute()):
        log = log_of(options.out)
        aside = log.set_aside()
        if aside is not None:
            print(f"note: {log.warning()}; copied to {aside.name}", file=sys.stderr)
        with listeners_of(options) as listeners:
            outcome = run_planned(planned, options, *listeners)
        if as_json:
            print(json.dumps(outcome_json(outcome), indent=1))
        else:
            print_outcome(outcome, options)
        then()
    send_home(options.out)
    return 1 if outcome.failed else 0
