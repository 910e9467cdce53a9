"""The command `raygrid`: list, show, plan, run, table, report, evaluate, figure, and more."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raygrid.cli.common import say_broken
from raygrid.cli.evaluate import add_evaluate, evaluate
from raygrid.cli.figure import add_figure, figure
from raygrid.cli.guard import guarded
from raygrid.cli.inspect import add_inspect, inspect_file
from raygrid.cli.methods import list_methods
from raygrid.cli.options import (
    FilledLater,
    add_axes,
    add_fleet,
    add_options,
    add_running,
    axes_given,
    fleet_of,
    options_of,
    with_axes,
)
from raygrid.cli.overview import Overview
from raygrid.cli.plan import show_plan
from raygrid.cli.poison import add_poison, make_poison
from raygrid.cli.run import place_and_run, specs_from_grids
from raygrid.cli.show import add_show, show_one
from raygrid.cli.submit import add_submit, split_command, submit
from raygrid.core.errors import SpecError
from raygrid.core.options import Options
from raygrid.core.plugins import load_plugins
from raygrid.core.registry import require
from raygrid.core.spec import TrialSpec
from raygrid.core.text import say, wrapped
from raygrid.engine.costs.simulate import check_price
from raygrid.engine.grid import Grid, read_specs
from raygrid.tracking import status


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    line, words = split_command(sys.argv[1:] if argv is None else argv)
    args = parser().parse_args(line)
    args.line, args.words = line, words
    return guarded(lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    """Run a command with the methods that it may name.

    Those that name none work beside a package that cannot be imported, too.
    """
    if args.command not in (submit, show_status, doctor):
        load_plugins(tuple(args.imports))
    return int(args.command(args))


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = Overview(prog="raygrid", description="One grid for availability poisoning.")
    commands = top.add_subparsers(required=True, metavar="COMMAND", parser_class=FilledLater)

    def command(name: str, run: Any, text: str, fill: Any = None) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text, fill=fill)
        made.set_defaults(command=run)
        made.add_argument("--json", action="store_true", help="print JSON")
        add_options(made)
        return made

    listing = command("list", list_methods, "Methods of a kind with their cards.")
    listing.add_argument("kind", nargs="?", help="attacks, defenses, ...")
    listing.add_argument("--markdown", action="store_true", help="print a page of documentation")
    add_show(command("show", show_one, "One method, or one finished trial by its spec or key."))
    for name, run, text in (
        ("plan", show_grid_plan, "What a grid comes to, before anything runs."),
        ("run", run_specs, "Run specs or a grid; what is done is not run again."),
    ):
        grid = command(name, run, text)
        grid.add_argument("specs", nargs="*", help="spec strings, or files of them (@FILE)")
        add_axes(grid)
        add_running(grid)
        if name == "plan":
            add_fleet(grid)
    table = command("table", show_table, "A table of the results under --out.", _add_kinds)
    table.add_argument("--format", choices=("text", "markdown", "csv", "latex"), default="text")
    table.add_argument("--interval", action="store_true", help="95 %% intervals in text formats")
    page = command("report", write_report, "One page of run folders that opens without a network.")
    page.add_argument(
        "folders", nargs="*", type=Path, help="folders of runs, a column each (default: --out)"
    )
    page.add_argument(
        "--file", type=Path, help="the page (FOLDER/report.html; of several ./report.html)"
    )
    add_evaluate(command("evaluate", evaluate, "Questions to finished trials."))
    add_figure(command("figure", figure, "Figures of finished trials and poisons."))
    text = "Tables and figures of a paper, measured beside printed."
    papers = commands.add_parser("reproduce", help=text, description=text, fill=_add_papers)
    papers.set_defaults(command=reproduce)
    add_poison(command("poison", make_poison, "Make, look at and export a poisoned dataset."))
    add_inspect(command("inspect", inspect_file, "What a file or folder of a poison holds."))
    download = command("download", fetch_data, "Fetch a dataset's official files into --data.")
    download.add_argument("dataset", help="e.g. cifar10")
    add_submit(commands)
    state = command("status", show_status, "How the run in --out is doing.")
    state.add_argument("--price", type=float, default=0.0, help="dollars for one device an hour")
    state.add_argument("--devices", type=int, default=1, help="number of devices paid for")
    command("sync", sync_mlflow, "Write all results under --out to MLflow again.")
    checks = command("doctor", doctor, "Is this machine ready?")
    checks.add_argument(
        "--cluster", type=Path, metavar="FILE", help="look at a cluster file instead; sends nothing"
    )
    return top


def _add_kinds(parser: argparse.ArgumentParser) -> None:
    from raygrid.reports.tables.kinds import TABLE_KINDS

    parser.add_argument("kind", choices=TABLE_KINDS)


def _add_papers(parser: argparse.ArgumentParser) -> None:
    from raygrid.cli.papers import add_reproduce

    add_reproduce(parser)


def reproduce(args: argparse.Namespace) -> int:
    from raygrid.cli import reproduce as papers

    return papers.reproduce(args)


def given_specs(args: argparse.Namespace) -> list[TrialSpec | str]:
    """Specs given one by one and in files; without any, the grid of the axes."""
    if not args.specs:
        return [*specs_from_grids(with_axes([Grid()], args))]
    if given := axes_given(args):
        raise SpecError(
            f"{args.specs[0]} names whole trials, which {', '.join(given)} would not change: "
            "give specs or axes"
        )
    specs: list[TrialSpec | str] = []
    for text in args.specs:
        specs += read_specs(Path(text[1:])) if text.startswith("@") else [text]
    return specs


def show_grid_plan(args: argparse.Namespace) -> int:
    return show_plan(given_specs(args), _strict(args), args.json, fleet_of(args))


def run_specs(args: argparse.Namespace) -> int:
    return place_and_run(given_specs(args), _strict(args), args)


def _strict(args: argparse.Namespace) -> Options:
    """A spec that a person typed and that cannot run is a fault, not a skip."""
    return options_of(args, strict=bool(args.specs), name="run")


def show_status(args: argparse.Namespace) -> int:
    from raygrid.storage.results import log_of

    check_price(args.price)
    devices = args.devices
    require(devices >= 1, f"devices is {devices}, allowed are whole numbers from 1")
    say_broken(log_of(args.out))
    found = status.read_all(args.out.absolute())
    alone = found.get("") if len(found) == 1 else None
    if args.json:
        print(json.dumps(alone or {"drivers": found}, indent=1))
        return 0
    for name, each in found.items():
        print(f"driver {name}:" if name else "", end="\n" if name else "")
        say(status.status_text(each, args.price, args.devices))
    return 0


def show_table(args: argparse.Namespace) -> int:
    from raygrid.reports.tables import kinds, latex, render, tidy
    from raygrid.reports.tables.trial_lines import in_order, trial_lines
    from raygrid.storage.results import log_of

    plain = args.format == "text" or not args.json
    require(plain, f"--format {args.format} and --json are two forms: leave one of them out")
    log = log_of(args.out)
    rows = list(log.rows())
    say_broken(log)
    if not rows:
        raise SpecError(f"there are no results under {args.out}")
    made = kinds.table(args.kind, trial_lines(in_order(rows)))
    made = made.with_intervals() if args.interval else made
    if args.format == "text" and not args.json:
        render.show(made)
        return 0
    writers = {"markdown": render.markdown, "csv": tidy.csv_text, "latex": latex.latex}
    sys.stdout.write((render.json_text if args.json else writers[args.format])(made))
    return 0


def write_report(args: argparse.Namespace) -> int:
    from raygrid.reports.page.write import report

    file = report(args.folders or [args.out], args.file)
    print(json.dumps({"report": str(file)}) if args.json else file)
    return 0


def fetch_data(args: argparse.Namespace) -> int:
    from raygrid.datasets import DATASETS

    DATASETS.make(args.dataset).download(args.data)
    print(json.dumps({"data": str(args.data)}) if args.json else f"{args.dataset}: {args.data}")
    return 0


def sync_mlflow(args: argparse.Namespace) -> int:
    from raygrid.tracking.mlflow import sync as rebuild

    require(args.tracking != "off", "sync writes to MLflow, and --tracking off says not to")
    done = rebuild(args.out.absolute(), args.tracking)
    if args.json:
        print(json.dumps({"written": done.written, "runs": done.there}))
    else:
        print(f"{done.there} runs are in MLflow, {done.written} of them written now")
    return 0


def doctor(args: argparse.Namespace) -> int:
    from raygrid.cli.cluster_file import examine_cluster
    from raygrid.cli.doctor import examine

    findings = examine_cluster(args.cluster) if args.cluster else examine(options_of(args))
    if args.json:
        print(json.dumps([f.row() for f in findings], indent=1))
    else:
        room = max(len(finding.name) for finding in findings)
        for finding in findings:
            print(wrapped(f"{finding.state:<6} {finding.name:<{room}}  {finding.text}", room + 9))
    return 1 if any(f.state == "fault" for f in findings) else 0
