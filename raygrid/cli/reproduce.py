"""The command `raygrid reproduce`: the printed tables and figures of one paper."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from raygrid.cli.options import fleet_of, options_of, seeds_of
from raygrid.cli.plan import show_plan
from raygrid.cli.run import place_and_run
from raygrid.core.errors import SpecError
from raygrid.core.options import Options
from raygrid.core.registry import require
from raygrid.core.spec import TrialSpec
from raygrid.engine.grid import plan
from raygrid.literature import reference
from raygrid.literature.questions import QUESTIONS
from raygrid.literature.reference import tables_of
from raygrid.nn.diffusion.checkpoints import hub_unasked, on_hub
from raygrid.reports.tables import render, write
from raygrid.reports.tables.kinds import table
from raygrid.reports.tables.trial_lines import trial_lines
from raygrid.reproduce.ablations import mirrored
from raygrid.reproduce.beside import compared
from raygrid.reproduce.figure_list import PaperFigure, drawn_figures_of
from raygrid.reproduce.papers import PAPERS
from raygrid.reproduce.scales import STAND_INS
from raygrid.reproduce.tables import Files, Only, PaperTable, paper_table, paper_table_of
from raygrid.storage.mirrored import open_store
from raygrid.storage.results import log_of

if TYPE_CHECKING:
    from raygrid.reproduce.questions import FinishedTrials

SMOKE_NOTE = (
    "Scale smoke: few images and epochs, to see that it runs; the numbers say nothing. In "
    "brackets what the paper printed for the real thing."
)
SCREEN_NOTE = (
    "Scale screen: the paper's data and budgets with a victim that trains in minutes, poisons of "
    "that network where one is needed, and smaller networks in defenses that fit some. In brackets "
    "what the paper printed."
)


def reproduce(args: argparse.Namespace) -> int:
    """Plan or run the table or figure that was asked for, and show it beside the paper's."""
    args.seeds = seeds_of(args)
    answer = _figure if args.figure else _table
    if not args.dry_run:
        return answer(args)
    if on_hub(args.diffusion):
        print(f"note: the hub is not asked for {args.diffusion} in a dry run", file=sys.stderr)
    with hub_unasked():
        return answer(args)


def files_of(args: argparse.Namespace) -> Files:
    """The user's files by absolute path: jobs may run in another folder."""
    return Files(_found(args.diffusion), _found(args.setups))


def _found(file: str) -> str:
    """The absolute path of what is there; any other text as it is, such as a name on a hub."""
    return str(Path(file).absolute()) if file and Path(file).exists() else file


def _table(args: argparse.Namespace) -> int:
    paper = PAPERS[args.paper]
    numbered = args.table in tables_of(args.paper)
    printed = reference.printed_questions(args.paper, args.table) if numbered else []
    questions = [QUESTIONS[each.question] for each in printed]
    files = files_of(args)
    seeds = with_fewest(args.seeds, max([1, *(question.seeds for question in questions)]))
    wanted = paper_table(args.paper, args.table, args.scale, part_of(args), seeds, files)
    check_used(wanted, files, args.scale)
    keep = {kind for question in questions for kind in question.keep}
    answer = partial(_answer, wanted, args, seeds, f"{args.paper}-{args.table}")
    status, options = plan_or_run(wanted, args, keep, answer)
    if not args.json:
        show_tables(wanted, options, paper.kinds_of(args.table), args)
        if args.dry_run:
            answer(options)
        if args.table == "flip":
            log = log_of(options.out)
            print(*mirrored(log.rows(), wanted.printed), sep="\n")
    return status


def with_fewest(seeds: Sequence[int], count: int) -> tuple[int, ...]:
    """These seeds, and the lowest others up to as many as an answer needs."""
    others = (seed for seed in itertools.count() if seed not in seeds)
    return (*seeds, *itertools.islice(others, max(0, count - len(seeds))))


def check_used(wanted: PaperTable, files: Files, scale: str) -> None:
    """Raise SpecError if a file is named that no trial loads, or a predictor that cannot load."""
    if files.setups and not any(_drawn_from(text, files.setups) for text in wanted.specs):
        raise SpecError(
            f"--setups {files.setups}: no trial of scale {scale} reads the official set-ups; "
            "allowed with it are --scale small and paper"
        )
    if not files.checkpoint:
        return
    loading = [text for text in wanted.specs if _loads(text, files.checkpoint)]
    if not loading:
        raise SpecError(f"--diffusion {files.checkpoint}: nothing here is purified by diffusion")
    for skip in plan(loading, None).skips:
        raise SpecError(f"--diffusion {files.checkpoint}: {skip.reason}")


def _drawn_from(spec: str, folder: str) -> bool:
    """Whether a trial takes its set-up from that folder."""
    return dict(TrialSpec.parse(spec).protocol.params).get("setups") == folder


def _loads(spec: str, checkpoint: str) -> bool:
    """Whether a defense of a spec starts from that file or folder."""
    parts = TrialSpec.parse(spec).defense
    return any(dict(part.params).get("checkpoint") == checkpoint for part in parts)


def part_of(args: argparse.Namespace) -> Only:
    """The part of a table or figure that was asked for."""
    return Only(args.dataset, args.attacks or (), args.defenses or ())


def _answer(
    wanted: PaperTable, args: argparse.Namespace, seeds: Sequence[int], name: str, options: Options
) -> None:
    """Print and write what the table asks of finished trials; of a dry run what was printed."""
    from raygrid.reproduce.questions import answered

    evidence = None if args.dry_run else _evidence(options)
    for made in answered(wanted.questions, evidence, args.scale, seeds):
        if not args.json:
            render.show(made)
        if evidence:
            write.write_table(options.out / "tables", f"{name}-{made.kind}", made)


def _evidence(options: Options) -> FinishedTrials:
    """What the trials of a folder left."""
    from raygrid.reports.analysis.records import Records
    from raygrid.reproduce.questions import FinishedTrials

    log = log_of(options.out)
    records = Records(open_store(options.store_url), options.data)
    return FinishedTrials(records, {row["spec"]: row for row in log.rows()})


def _figure(args: argparse.Namespace) -> int:
    """Run what a figure shows, if that takes a victim, and draw it."""
    shown, files = drawn_figures_of(args.paper)[args.figure], files_of(args)
    counts_epochs = shown.drawing == "speed_peak" and args.scale == "screen"
    require(
        not counts_epochs,
        f"figure {args.figure} counts epochs until the training loss is below 0.5, and "
        "at --scale screen smoothed labels keep it above; allowed are all other scales",
    )
    trials = files.into(part_of(args).of([TrialSpec.parse(text) for text in shown.trials]))
    shown = replace(shown, trials=tuple(map(str, trials)))
    wanted = paper_table_of(trials, args.scale, args.seeds)
    check_used(wanted, files, args.scale)
    drawn = partial(_draw, shown, args, f"{args.paper}-{args.figure}-{args.scale}")
    if shown.trained or args.dry_run:
        return plan_or_run(wanted, args, shown.keep, drawn)[0]
    drawn(options_of(args))
    return 0


def _draw(shown: PaperFigure, args: argparse.Namespace, name: str, options: Options) -> None:
    from raygrid.reproduce.figures import FigureData, draw

    data = FigureData(shown, _evidence(options), args.scale, args.seeds)
    files = draw(data, options.out / "figures" / name)
    print(*files, sep="\n", file=sys.stderr if args.json else sys.stdout)


def plan_or_run(
    wanted: PaperTable,
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
    options = options_of(args, name=f"{args.paper}-{number}-{args.scale}")
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


def shorter(wanted: PaperTable, scale: str) -> list[str]:
    """What to say of attacks and defenses that screening made shorter; nothing elsewhere."""
    names = wanted.substitutes if scale == "screen" else ()
    return [f"Stand-ins: {'; '.join(names)}."] if names else []


def show_tables(
    wanted: PaperTable, options: Options, kinds: Iterable[str], args: argparse.Namespace
) -> None:
    """Published beside measured, for the trials of the table that have a row.

    Stand-ins have the paper's numbers beside them and a note what they are. A run at another scale
    has shown the table `defense`, which is shown again only if this table has other numbers there.
    """
    note = {"smoke": SMOKE_NOTE, "screen": SCREEN_NOTE}.get(args.scale, PAPERS[args.paper].quick)
    planned = plan(wanted.specs, None)
    names = {str(trial.spec) for trial in (*planned.trials, *planned.derived)}
    log = log_of(options.out)
    trials = trial_lines(row for row in log.rows() if row["spec"] in names)
    print(f"{sum(trial['status'] == 'done' for trial in trials)} of {len(names)} rows are there")
    stand_ins, place = args.scale in STAND_INS, (args.paper, args.table)
    for kind in kinds:
        made = table(kind, trials)
        panels = tuple(p for panel in made.panels for p in compared(panel, place, wanted))
        shown = kind == "defense" and not args.dry_run and not stand_ins
        if not panels or (shown and panels == made.panels):
            continue
        notes = [note, *shorter(wanted, args.scale), *several(wanted)] if stand_ins else []
        caption = " ".join([made.caption, *notes])
        render.show(replace(made, panels=panels, caption=caption))
