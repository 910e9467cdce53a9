"""The command `raygrid evaluate`: questions to trials that are finished, answered in rows."""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from raygrid.cli.common import (
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
from raygrid.cli.row_text import narrow_text, rows_text
from raygrid.core.coercion import coerce
from raygrid.core.errors import SpecError
from raygrid.core.literals import parse_scalar
from raygrid.core.registry import require

if TYPE_CHECKING:
    from raygrid.reports.analysis.records import EvaluationRow, Records

DEFAULT_RADIUS = "8/255"
WHOLE_FOLDER_QUESTIONS = ("seeds", "cost", "agreement")
"""Questions to all trials of the output folder, if none is named."""
QUESTION_OPTIONS: Mapping[str, Sequence[str]] = {
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
    parser.add_argument("question", choices=(*EVALUATIONS, "agreement"))
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
        help="used by seeds, compare and agreement",
    )
    parser.add_argument(
        "--victims",
        nargs="+",
        action="extend",
        default=[],
        help="used by transferability: the trials whose victims are asked",
    )
    parser.add_argument(
        "--on", nargs="+", action="extend", default=[], help="used by sets: more poisons to try"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of poisons (dataset/attack)")
    parser.add_argument(
        "--radius", default=DEFAULT_RADIUS, help="used by robustness, linearity; in [0, 1]"
    )
    parser.add_argument("--step", default="2/255", help="used by robustness: size of a step")
    parser.add_argument("--steps", type=int, default=20, help="used by robustness: how many steps")
    help_ = "used by robustness, linearity: only so many test images, or drawn images of a poison"
    parser.add_argument("--images", type=int, help=help_)
    help_ = "used by linearity: also a network with a hidden layer, by UDP's recipe; takes its time"
    parser.add_argument("--two-layer", action="store_true", help=help_)
    help_ = (
        "used by learnability: spread of the noise on weights, draws of it, quantile of accuracies"
    )
    parser.add_argument("--sigma", type=float, default=0.25, help=help_)
    parser.add_argument("--draws", type=int, default=1000, help="see --sigma")
    parser.add_argument("--quantile", type=float, default=0.9, help="see --sigma")
    add_epoch(parser)


def evaluate(args: argparse.Namespace) -> int:
    """Answer a question and print its rows."""
    if not args.specs and args.question not in WHOLE_FOLDER_QUESTIONS:
        raise SpecError(f"{args.question} needs the spec of a trial or poison")
    refuse_idle(args, args.question, QUESTION_OPTIONS, add_evaluate)
    only_of_poisons("--seed", args.seed, (*args.specs, *args.on))
    if args.question == "agreement":
        return _agreement(records_of(args), args)
    rows = EVALUATIONS[args.question](records_of(args), args)
    if args.json:
        print(json.dumps(rows, indent=1))
    else:
        _show(rows)
    return 0


def _expect(records: Records, args: argparse.Namespace, left: str = "") -> None:
    """Raise for a faulty spec, wherever it stands, before hours go into those in front of it.

    left: what the trials have to have left, empty for nothing.
    """
    poisoned = [text for text in args.specs if is_poison(text)]
    trials = [text for text in args.specs if not is_poison(text)]
    records.expect([*trials, *args.victims], [*poisoned, *args.on], args.seed, left)


def _transferability(records: Records, args: argparse.Namespace) -> list[EvaluationRow]:
    from raygrid.reports.analysis.questions import transferability

    records.expect(args.victims, args.specs, args.seed, records.networks)
    victims = victims_of(records, args.question, args.victims)
    return transferability(poisons_of(records, args), victims)


def _robustness(records: Records, args: argparse.Namespace) -> list[EvaluationRow]:
    from raygrid.nn.pgd import Ball
    from raygrid.reports.analysis.questions import robustness

    radius, step = (coerce(parse_scalar(t), float, 0.0) for t in (args.radius, args.step))
    require(0 <= radius <= 1, f"radius is {args.radius}, allowed are numbers from 0 to 1")
    require(0 < step < math.inf, f"step is {args.step}, allowed are numbers above 0")
    require(args.steps >= 0, f"steps is {args.steps}, allowed are whole numbers from 0")
    _check_images(args)
    _expect(records, args, records.networks)
    ball = Ball(radius, args.steps, step)
    return robustness([records.victim(spec) for spec in args.specs], ball, args.images)


def _linearity(records: Records, args: argparse.Namespace) -> list[EvaluationRow]:
    from raygrid.reports.analysis.linearity import linearity_of_poisons, linearity_of_victim

    radius = coerce(parse_scalar(args.radius), float, 0.0)
    if not 0 < radius <= 1:
        raise SpecError(f"radius is {args.radius}, allowed are numbers above 0 to 1")
    _check_images(args)
    only_of_poisons("--two-layer", args.two_layer, args.specs)
    only_of_trials("--radius", args.radius != DEFAULT_RADIUS, args.specs)
    _expect(records, args, records.networks)
    rows: list[EvaluationRow] = []
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


def _learnability(records: Records, args: argparse.Namespace) -> list[EvaluationRow]:
    from raygrid.reports.analysis.learnability import check_noise, learnability

    how = args.sigma, args.draws, args.quantile
    check_noise(*how)
    _expect(records, args, records.networks)
    return [row for spec in args.specs for row in learnability(records.victim(spec), *how)]


def _sets(records: Records, args: argparse.Namespace) -> list[EvaluationRow]:
    from raygrid.reports.analysis.questions import accuracy_on_sets

    _expect(records, args, records.networks)
    others = {text: records.poisoned(text, args.seed).images for text in args.on}
    return [row for spec in args.specs for row in accuracy_on_sets(records, spec, others)]


def _fidelity(records: Records, args: argparse.Namespace) -> list[EvaluationRow]:
    from raygrid.reports.analysis.fidelity import fidelity_of_poison, fidelity_of_purified

    _expect(records, args)
    rows: list[EvaluationRow] = []
    device = records.worker.device
    for text in args.specs:
        if is_poison(text):
            rows += fidelity_of_poison(records.poisoned(text, args.seed), device)
        else:
            rows += fidelity_of_purified(records, text, device)
    return rows


def _norms(records: Records, args: argparse.Namespace) -> list[EvaluationRow]:
    from raygrid.reports.analysis.fidelity import norms_of_disentangled

    records.expect([], args.specs, args.seed, "")
    return [norms_of_disentangled(records, text, args.seed) for text in args.specs]


def _classes(records: Records, args: argparse.Namespace) -> list[EvaluationRow]:
    from raygrid.reports.analysis.classes import by_class

    _expect(records, args, "predictions")
    return [row for spec in args.specs for row in by_class(records, spec)]


def _seeds(records: Records, args: argparse.Namespace) -> list[EvaluationRow]:
    from raygrid.reports.analysis.summary import over_seeds

    return over_seeds(rows_of(records, args), args.metric)


def _compare(records: Records, args: argparse.Namespace) -> list[EvaluationRow]:
    from raygrid.reports.analysis.comparison import compare, is_trial
    from raygrid.trials.resolve import resolve

    sides = [str(resolve(s, records.catalog).spec) if is_trial(s) else s for s in args.specs]
    return compare(results_of(args).values(), sides, args.metric)


def _cost(records: Records, args: argparse.Namespace) -> list[EvaluationRow]:
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


EVALUATIONS: Mapping[str, Callable[[Records, argparse.Namespace], list[EvaluationRow]]] = {
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


def _show(rows: Sequence[EvaluationRow]) -> None:
    """Print rows as wide as the terminal; whole lines into a pipe or file."""
    width = shutil.get_terminal_size().columns
    text = rows_text(rows)
    wide = max(map(len, text.splitlines()), default=0) > width
    print(narrow_text(rows, width) if wide and sys.stdout.isatty() else text)
