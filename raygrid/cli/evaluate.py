"""The command `raygrid evaluate`: questions to trials that are finished, answered in rows."""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from raygrid.cli.common import (
    Row,
    add_epoch,
    is_poison,
    only_of_poisons,
    only_of_trials,
    poisons_of,
    records_of,
    results_of,
    rows_of,
    victims_of,
)
from raygrid.cli.idle import refuse_idle
from raygrid.core.errors import SpecError
from raygrid.core.registry import coerce, require
from raygrid.core.spec import parse_scalar
from raygrid.core.text import wrapped
from raygrid.reports.tables.blocks import blocks_within

if TYPE_CHECKING:
    from raygrid.reports.analysis.records import Records

MANY = 16  # columns that no terminal is wide enough for
RADIUS = "8/255"
WHOLE = ("seeds", "cost", "agreement")
"""Questions to all trials of the output folder, if none is named."""
TAKES: Mapping[str, Sequence[str]] = {
    "transferability": ("victims", "seed", "epoch"),
    "robustness": ("radius", "step", "steps", "images", "epoch"),
    "linearity": ("radius", "images", "two_layer", "seed", "epoch"),
    "learnability": ("sigma", "draws", "quantile", "epoch"),
    "sets": ("on", "seed", "epoch"),
    "fidelity": ("seed",),
    "norms": ("seed",),
    "classes": (),  # predictions are kept of the last epoch alone
    "seeds": ("metric",),
    "compare": ("metric",),
    "cost": (),
    "agreement": ("metric",),
}
"""By its question the options that it takes."""


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """The arguments of `evaluate`."""
    parser.add_argument("question", choices=(*ANSWERS, "agreement"))
    parser.add_argument(
        "specs",
        nargs="*",
        help="trials run with --keep weights (classes: predictions); poisons for transferability; "
        "poisons or purified trials for fidelity; poisons that a D-VAE found for norms; "
        "poisons or trials with weights for linearity; "
        "seeds, cost and agreement (with what papers printed): trials, or none for all of --out; "
        "compare: two or more defenses, or trials, each with all of its seeds",
    )
    parser.add_argument(
        "--metric",
        choices=("final_acc", "peak_acc"),
        default="final_acc",
        help="of seeds, compare and agreement",
    )
    parser.add_argument(
        "--victims", nargs="+", action="extend", default=[], help="of transferability: trials"
    )
    parser.add_argument(
        "--on", nargs="+", action="extend", default=[], help="of sets: more poisons to try"
    )
    parser.add_argument("--seed", type=int, default=0, help="of poisons (dataset/attack)")
    parser.add_argument("--radius", default=RADIUS, help="of robustness, linearity; in [0, 1]")
    parser.add_argument("--step", default="2/255", help="of robustness: size of a step")
    parser.add_argument("--steps", type=int, default=20, help="of robustness")
    help_ = "of robustness, linearity: only so many test images, or drawn images of a poison"
    parser.add_argument("--images", type=int, help=help_)
    help_ = "of linearity: also a network with a hidden layer, by UDP's recipe; takes its time"
    parser.add_argument("--two-layer", action="store_true", help=help_)
    help_ = "of learnability: spread of the noise on weights, draws of it, quantile of accuracies"
    parser.add_argument("--sigma", type=float, default=0.25, help=help_)
    parser.add_argument("--draws", type=int, default=1000, help="see --sigma")
    parser.add_argument("--quantile", type=float, default=0.9, help="see --sigma")
    add_epoch(parser)


def evaluate(args: argparse.Namespace) -> int:
    """Answer a question and print its rows."""
    if not args.specs and args.question not in WHOLE:
        raise SpecError(f"{args.question} needs the spec of a trial or poison")
    refuse_idle(args, args.question, TAKES, add_evaluate)
    only_of_poisons("--seed", args.seed, (*args.specs, *args.on))
    if args.question == "agreement":
        return _agreement(records_of(args), args)
    rows = ANSWERS[args.question](records_of(args), args)
    if args.json:
        print(json.dumps(rows, indent=1))
    else:
        _show(rows)
    return 0


def _transferability(records: Records, args: argparse.Namespace) -> list[Row]:
    from raygrid.reports.analysis.questions import transferability

    victims = victims_of(records, args.question, args.victims)
    return transferability(poisons_of(records, args), victims)


def _robustness(records: Records, args: argparse.Namespace) -> list[Row]:
    from raygrid.nn.pgd import Ball
    from raygrid.reports.analysis.questions import robustness

    radius, step = (coerce(parse_scalar(t), float, 0.0) for t in (args.radius, args.step))
    require(0 <= radius <= 1, f"radius is {args.radius}, allowed are numbers from 0 to 1")
    require(0 < step < math.inf, f"step is {args.step}, allowed are numbers above 0")
    require(args.steps >= 0, f"steps is {args.steps}, allowed are whole numbers from 0")
    _check_images(args)
    ball = Ball(radius, args.steps, step)
    return robustness([records.victim(spec) for spec in args.specs], ball, args.images)


def _linearity(records: Records, args: argparse.Namespace) -> list[Row]:
    from raygrid.reports.analysis.linearity import linearity_of_poisons, linearity_of_victim

    radius = coerce(parse_scalar(args.radius), float, 0.0)
    if not 0 < radius <= 1:
        raise SpecError(f"radius is {args.radius}, allowed are numbers above 0 to 1")
    _check_images(args)
    only_of_poisons("--two-layer", args.two_layer, args.specs)
    only_of_trials("--radius", args.radius != RADIUS, args.specs)
    rows: list[Row] = []
    for text in args.specs:
        if is_poison(text):
            poisoned = [records.poisoned(text, args.seed)]
            how = records.worker.device, args.images, args.two_layer
            rows += linearity_of_poisons(poisoned, *how)
        else:
            rows.append(linearity_of_victim(records.victim(text), radius, args.images))
    return rows


def _check_images(args: argparse.Namespace) -> None:
    some = args.images is None or args.images >= 1
    require(some, f"images is {args.images}, allowed are whole numbers from 1")


def _learnability(records: Records, args: argparse.Namespace) -> list[Row]:
    from raygrid.reports.analysis.learnability import learnability

    how = args.sigma, args.draws, args.quantile
    return [row for spec in args.specs for row in learnability(records.victim(spec), *how)]


def _sets(records: Records, args: argparse.Namespace) -> list[Row]:
    from raygrid.reports.analysis.questions import accuracy_on_sets

    others = {text: records.poisoned(text, args.seed).images for text in args.on}
    return [row for spec in args.specs for row in accuracy_on_sets(records, spec, others)]


def _fidelity(records: Records, args: argparse.Namespace) -> list[Row]:
    from raygrid.reports.analysis.fidelity import fidelity_of_poison, fidelity_of_purified

    rows: list[Row] = []
    device = records.worker.device
    for text in args.specs:
        if is_poison(text):
            rows += fidelity_of_poison(records.poisoned(text, args.seed), device)
        else:
            rows += fidelity_of_purified(records, text, device)
    return rows


def _norms(records: Records, args: argparse.Namespace) -> list[Row]:
    from raygrid.reports.analysis.fidelity import norms_of_disentangled

    return [norms_of_disentangled(records, text, args.seed) for text in args.specs]


def _classes(records: Records, args: argparse.Namespace) -> list[Row]:
    from raygrid.reports.analysis.classes import by_class

    return [row for spec in args.specs for row in by_class(records, spec)]


def _seeds(records: Records, args: argparse.Namespace) -> list[Row]:
    from raygrid.reports.analysis.summary import over_seeds

    return over_seeds(rows_of(records, args), args.metric)


def _compare(records: Records, args: argparse.Namespace) -> list[Row]:
    from raygrid.reports.analysis.comparison import compare, is_trial
    from raygrid.trials.resolve import resolve

    sides = [str(resolve(s, records.catalog).spec) if is_trial(s) else s for s in args.specs]
    return compare(results_of(args).values(), sides, args.metric)


def _cost(records: Records, args: argparse.Namespace) -> list[Row]:
    from raygrid.reports.analysis.summary import costs

    every = results_of(args)
    return costs(rows_of(records, args, every), records.store, every.values())


def _agreement(records: Records, args: argparse.Namespace) -> int:
    """Its three parts one below the other; as JSON an object of three lists."""
    from raygrid.reports.analysis.agreement import agreement

    found = agreement(rows_of(records, args), args.metric)
    far = [row for row in found.cells if row["far"]]
    parts = {"cells": found.cells, "correlations": found.correlations, "winners": found.winners}
    if args.json:
        print(json.dumps({**parts, "far": far}, indent=1))
        return 0
    for name, rows in parts.items():
        print(name)
        _show(rows)
        print()
    print(f"{len(far)} of {len(found.cells)} cells are more than 15 points off")
    return 0


ANSWERS: Mapping[str, Callable[[Records, argparse.Namespace], list[Row]]] = {
    "transferability": _transferability,
    "robustness": _robustness,
    "linearity": _linearity,
    "learnability": _learnability,
    "sets": _sets,
    "fidelity": _fidelity,
    "norms": _norms,
    "classes": _classes,
    "seeds": _seeds,
    "compare": _compare,
    "cost": _cost,
}
"""By its question what answers it."""


def _show(rows: Sequence[Row]) -> None:
    """Print rows as wide as the terminal; whole lines into a pipe or file."""
    width = shutil.get_terminal_size().columns
    text = rows_text(rows)
    wide = max(map(len, text.splitlines()), default=0) > width
    print(narrow_text(rows, width) if wide and sys.stdout.isatty() else text)


def narrow_text(rows: Sequence[Row], width: int) -> str:
    """Rows within so many letters: what is the same in all of them is said once above.

    Columns beyond the width stand below, again behind the names that begin the rows.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    said = {name: [_say(name, row.get(name)) for row in rows] for name in columns}
    same = [name for name in columns if len(rows) > 1 and len(set(said[name])) == 1]
    rest = [name for name in columns if name not in same]
    wide = {name: max(map(len, [name, *said[name]])) + 2 for name in rest}
    numbers = [not all(isinstance(row.get(name), str) for row in rows) for name in rest]
    count = numbers.index(True) if any(numbers) else 0
    names, others = rest[:count], rest[count:]
    lines = [wrapped("; ".join(f"{name} {said[name][0]}" for name in same))] if same else []
    room = width - sum(wide[name] for name in names)
    for block in blocks_within([wide[name] for name in others], room):
        shown = [*names, *(others[n] for n in block)]
        table = [shown, *([said[name][n] for name in shown] for n in range(len(rows)))]
        for line in table:
            cells = (cell.ljust(wide[name]) for cell, name in zip(line, shown, strict=True))
            lines.append("".join(cells).rstrip())
        lines.append("")
    return "\n".join(lines).rstrip()


def rows_text(rows: Sequence[Row]) -> str:
    """Rows as aligned columns, as lines if there are too many of them; shares in percent."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [columns] + [[_say(name, row.get(name)) for name in columns] for row in rows]
    if len(columns) > MANY:
        cells = list(map(list, zip(*cells, strict=True)))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in cells)
    return "\n".join(line.rstrip() for line in lines)


def _say(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name.endswith(("acc", "rate", "identical")):
        return f"{round(100 * value, 2) + 0.0:.2f} %"  # no minus before a zero
    if name in ("p", "p_holm"):
        return f"{value:.2g}"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
