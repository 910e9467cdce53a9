"""The front of the scripts that reproduce the tables and figures of one paper."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, get_args

from raygrid.api.run_grid import Options
from raygrid.cli.options import add_fleet, add_options, add_running, fleet_of, options_of
from raygrid.cli.run import guarded, place_and_run, show_plan
from raygrid.core.errors import SpecError, unknown
from raygrid.core.spec import TrialSpec
from raygrid.engine.grid import plan
from raygrid.literature import reference
from raygrid.literature.questions import QUESTIONS
from raygrid.literature.reference import tables_of
from raygrid.reports.tables import render, write
from raygrid.reports.tables.frame import frame
from raygrid.reports.tables.kinds import table
from raygrid.reproduce.figure_list import (
    LISTS,
    PaperFigure,
    drawings_of,
    drawn_figures_of,
    figures_of,
)
from raygrid.reproduce.scales import STAND_INS, Scale
from raygrid.reproduce.tables import (
    Only,
    PaperTable,
    compared,
    paper_table,
    paper_table_of,
    with_checkpoint,
)
from raygrid.storage.mirrored import open_store
from raygrid.storage.results import ResultLog

if TYPE_CHECKING:
    from raygrid.reproduce.questions import FinishedTrials

QUICK = (
    "Scale quick: stand-ins on a small dataset, a small network and short attacks at twice the "
    "printed budget; in brackets what the paper printed for the real thing."
)
SCALES = (
    "smoke: that everything runs, in minutes; quick: stand-ins on digits, minutes to hours of a "
    "CPU; small: as printed for 30 epochs; grid: as printed with fewer contrastive epochs; paper "
    "(default: quick)"
)
SMOKE = (
    "Scale smoke: few images and epochs, to see that it runs; the numbers say nothing. In "
    "brackets what the paper printed for the real thing."
)


def paper_main(
    paper: str,
    description: str,
    kinds: Sequence[str],
    tables: Sequence[str] = (),
    argv: Sequence[str] | None = None,
) -> int:
    """Parse the command line, plan or run the table or figure.

    kinds: what to print of the results. tables: those that the script is for; all by default, and
    then the paper's figures too.
    """
    figures = {} if tables else figures_of(paper)
    parser = parser_of(
        description + said(figures),
        list(tables) or tables_of(paper),
        list(drawn_figures_of(paper)) if figures else (),
        {"table": LISTS.get(paper, {}), "figure": drawings_of(paper)},
    )
    help_ = "AVATAR's noise predictor: a folder or hub id of diffusers, a file of score-SDE"
    parser.add_argument(
        "--diffusion", metavar="CHECKPOINT", default="", help=f"{help_} (fitted to clean images)"
    )
    args = parser.parse_args(argv)
    if args.diffusion and Path(args.diffusion).exists():
        args.diffusion = str(Path(args.diffusion).absolute())  # jobs may run in another folder
    if figures and args.figure:
        return guarded(lambda: _figure(paper, args))
    return guarded(lambda: _run(paper, kinds, args))


def said(figures: Mapping[str, PaperFigure | str]) -> str:
    """The figures of a paper, a line each; nothing without any."""
    lines = [
        f"{number:<7}{each.title if isinstance(each, PaperFigure) else f'left out: {each}'}"
        for number, each in figures.items()
    ]
    if not lines:
        return ""
    return "\n".join(["\nFigures (`--figure N`, a PNG and a CSV under OUT/figures):\n", *lines, ""])


def parser_of(
    description: str,
    tables: Sequence[str],
    figures: Sequence[str] = (),
    others: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> argparse.ArgumentParser:
    """The options that the scripts of all papers have.

    others: what the paper's other tables and figures are, by number, for who asks for one.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    only = tables[0] if len(tables) == 1 else None
    what = parser.add_mutually_exclusive_group(required=only is None)
    for kind, known in (("table", tables), ("figure", figures)):
        if known:
            chosen = _one_of(kind, known, others.get(kind, {}))
            what.add_argument(f"--{kind}", type=chosen, metavar="N", help=", ".join(known))
    parser.set_defaults(table=only)
    parser.add_argument("--scale", "--tier", default="quick", choices=get_args(Scale), help=SCALES)
    parser.add_argument("--dataset", help="only this dataset of it")
    parser.add_argument("--attacks", nargs="+", metavar="X", default=[], help="only these of it")
    parser.add_argument("--defenses", nargs="+", metavar="X", default=[], help="only these of it")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds, from 0")
    parser.add_argument("--dry-run", action="store_true", help="print the plan, run nothing")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_fleet(parser)
    add_running(parser)
    add_options(parser)
    return parser


def _one_of(kind: str, known: Sequence[str], others: Mapping[str, str]) -> Callable[[str], str]:
    def chosen(text: str) -> str:
        if text in known:
            return text
        if text in others:
            reason = f"{kind} {text} shows no data, it is {others[text]}"
            raise argparse.ArgumentTypeError(f"{reason}; those with data are {', '.join(known)}")
        raise argparse.ArgumentTypeError(unknown(kind, text, known))

    return chosen


def _run(paper: str, kinds: Sequence[str], args: argparse.Namespace) -> int:
    asked = [QUESTIONS[each.question] for each in reference.printed_questions(paper, args.table)]
    seeds = range(max([args.seeds, *(question.seeds for question in asked)]))
    wanted = paper_table(paper, args.table, args.scale, part_of(args), seeds, args.diffusion)
    check_used(wanted, args.diffusion)
    keep = {kind for question in asked for kind in question.keep}
    answer = partial(_answer, wanted, args, seeds, f"{paper}-{args.table}")
    status, options = plan_or_run(wanted, paper, args, keep, answer)
    if not args.dry_run and args.scale not in STAND_INS:  # whose run prints no published numbers
        kinds = [kind for kind in kinds if kind != "defense"]
    if not args.json:
        show_tables(wanted, options, kinds, paper, args.scale)
        if args.dry_run:
            answer(options)
    return status


def check_used(wanted: PaperTable, checkpoint: str) -> None:
    """Raise SpecError if a predictor is named that no trial loads, or one of them cannot load."""
    if not checkpoint:
        return
    loading = [text for text in wanted.specs if f"checkpoint={checkpoint}" in text]
    if not loading:
        raise SpecError(f"--diffusion {checkpoint}: nothing here is purified by diffusion")
    for skip in plan(loading, None).skips:
        raise SpecError(f"--diffusion {checkpoint}: {skip.reason}")


def part_of(args: argparse.Namespace) -> Only:
    """The part of a table or figure that was asked for."""
    return Only(args.dataset, args.attacks, args.defenses)


def _answer(
    wanted: PaperTable, args: argparse.Namespace, seeds: Sequence[int], name: str, options: Options
) -> None:
    """Print and write what the table asks of finished trials; of a dry run what was printed."""
    from raygrid.reproduce.questions import answered

    evidence = None if args.dry_run else _evidence(options)
    for made in answered(wanted.asked, evidence, args.scale, seeds):
        if not args.json:
            render.show(made)
        if evidence:
            write.write_table(options.out / "tables", f"{name}-{made.kind}", made)


def _evidence(options: Options) -> FinishedTrials:
    """What the trials of a folder left."""
    from raygrid.reports.analysis.records import Records
    from raygrid.reproduce.questions import FinishedTrials

    log = ResultLog(options.out.absolute() / "results.jsonl")
    records = Records(open_store(options.store_url), options.data)
    return FinishedTrials(records, {row["spec"]: row for row in log.rows()})


def _figure(paper: str, args: argparse.Namespace) -> int:
    """Run what a figure shows, if that takes a victim, and draw it."""
    shown = drawn_figures_of(paper)[args.figure]
    trials = part_of(args).of([TrialSpec.parse(text) for text in shown.trials])
    trials = with_checkpoint(trials, args.diffusion)
    shown = replace(shown, trials=tuple(map(str, trials)))
    wanted = paper_table_of(trials, args.scale, range(args.seeds))
    check_used(wanted, args.diffusion)
    drawn = partial(_draw, shown, args, f"{paper}-{args.figure}-{args.scale}")
    if shown.trained or args.dry_run:
        return plan_or_run(wanted, paper, args, shown.keep, drawn)[0]
    drawn(options_of(args))
    return 0


def _draw(shown: PaperFigure, args: argparse.Namespace, name: str, options: Options) -> None:
    from raygrid.reproduce.figures import FigureData, draw

    plate = FigureData(shown, _evidence(options), args.scale, range(args.seeds))
    files = draw(plate, options.out / "figures" / name)
    print(*files, sep="\n", file=sys.stderr if args.json else sys.stdout)


def plan_or_run(
    wanted: PaperTable,
    paper: str,
    args: argparse.Namespace,
    keep: Iterable[str] = (),
    then: Callable[[Options], None] = lambda options: None,
) -> tuple[int, Options]:
    """Plan or run what a table needs; says what is not there, raises SpecError if nothing is.

    keep: what the trials have to leave beside what was asked for. then: called after a run.
    """
    number = args.table or f"figure{args.figure}"
    for name in wanted.missing:
        print(f"left out, not there: {name}", file=sys.stderr)
    if not wanted.specs:
        raise SpecError(f"nothing of {number} can be run")
    options = options_of(args, name=f"{paper}-{number}-{args.scale}")
    options = replace(options, keep=tuple(dict.fromkeys([*options.keep, *sorted(keep)])))
    if args.dry_run:
        return show_plan(wanted.specs, options, args.json, fleet_of(args)), options
    return place_and_run(wanted.specs, options, args, lambda: then(options)), options


def several(wanted: PaperTable) -> list[str]:
    """What to say of trials that stand for more than one printed one; nothing if there are none."""
    if not wanted.shared:
        return []
    names = "; ".join(wanted.shared)
    said = "One trial stands for several printed ones: there is a table for each dataset, and none"
    return [f"{said} of their numbers where anything else differs ({names})."]


def show_tables(
    wanted: PaperTable,
    options: Options,
    kinds: Iterable[str],
    paper: str,
    scale: Scale,
    quick: str = QUICK,
) -> None:
    """Published beside measured, for the trials of the table that have a row.

    Stand-ins have the paper's numbers beside them and a note what they are; quick: that of scale
    quick.
    """
    note = SMOKE if scale == "smoke" else quick
    planned = plan(wanted.specs, None)
    names = {str(trial.spec) for trial in (*planned.trials, *planned.derived)}
    log = ResultLog(options.out.absolute() / "results.jsonl")
    trials = frame(row for row in log.rows() if row["spec"] in names)
    print(f"{int((trials['status'] == 'done').sum())} of {len(names)} rows are there")
    for kind in kinds:
        made = table(kind, trials)
        if scale in STAND_INS and made.panels:
            panels = tuple(p for panel in made.panels for p in compared(panel, paper, wanted))
            caption = " ".join([made.caption, note, *several(wanted)])
            made = replace(made, panels=panels, caption=caption)
        if made.panels:
            render.show(made)
