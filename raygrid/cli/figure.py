"""The command `raygrid figure`: pictures of trials that are finished, and of poisons."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from raygrid.cli.common import (
    add_epoch,
    check_picture,
    is_poison,
    only_of_poisons,
    poisons_of,
    records_of,
    rows_of,
    victims_of,
)
from raygrid.cli.idle import refuse_idle
from raygrid.core.errors import DataError, SpecError
from raygrid.core.registry import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from raygrid.reports.analysis.records import Records

SCATTER_AXES = {
    "transfer-peak": ("transfer_rate", "peak_acc"),
    "transfer-final": ("transfer_rate", "final_acc"),
    "psnr-final": ("psnr", "final_acc"),
}
"""Scatters by name: what is asked of a poison, and the accuracy of the trial with it."""
FIGURE_OPTIONS: Mapping[str, Sequence[str]] = {
    "tsne": ("seed",),  # features are kept of the last epoch alone
    "perturbations": ("seed", "normalize", "gain"),
    "grad-cam": ("layer", "of", "epoch"),
    "shapley": ("of", "estimator", "samples", "baseline", "epoch"),
    "transfer-peak": ("victims", "epoch"),
    "transfer-final": ("victims", "epoch"),
    "psnr-final": (),
    "agreement": (),
}
"""By its figure the options that it takes."""
FIGURES = ("tsne", "perturbations", "grad-cam", "shapley", *SCATTER_AXES, "agreement")


def add_figure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `figure`."""
    parser.add_argument("figure", choices=FIGURES)
    parser.add_argument(
        "specs",
        nargs="*",
        help="trials run with --keep weights (tsne: features); poisons for perturbations and "
        "tsne of these; "
        f"finished trials for {', '.join(SCATTER_AXES)}; agreement (with what papers printed): "
        "trials, or none for all of --out",
    )
    parser.add_argument("--file", type=Path, required=True, help="picture to write")
    parser.add_argument("--seed", type=int, default=0, help="seed of poisons (dataset/attack)")
    parser.add_argument(
        "--victims",
        nargs="+",
        action="extend",
        default=[],
        help="used by transfer-...: clean trials",
    )
    parser.add_argument(
        "--normalize",
        nargs="+",
        action="extend",
        choices=("minmax", "symmetric", "gain"),
        help="used by perturbations: each to its range, each around gray (default), all by one "
        "factor",
    )
    parser.add_argument(
        "--gain",
        type=float,
        help="factor of --normalize gain (default: the largest that clips nothing)",
    )
    parser.add_argument("--layer", default="", help="used by grad-cam, e.g. body.layer3")
    parser.add_argument(
        "--of", choices=("label", "predicted"), default="label", help="explain this class"
    )
    parser.add_argument("--estimator", choices=("gradient", "sampling"), default="gradient")
    parser.add_argument(
        "--samples", type=int, help="used by shapley (200 points; sampling: 25 orders)"
    )
    parser.add_argument(
        "--baseline", choices=("zero", "mean"), default="zero", help="image of --estimator sampling"
    )
    add_epoch(parser)


def figure(args: argparse.Namespace) -> int:
    """Draw a figure and say where it is."""
    from raygrid.reports.figures import embeddings

    if not args.specs and args.figure != "agreement":
        raise SpecError(f"{args.figure} needs the spec of a trial or poison")
    _check_options(args)
    check_picture(args.file)
    records = records_of(args)
    if args.figure == "agreement":
        drawn = _agreement(records, args)
    elif args.figure == "tsne" and all(map(is_poison, args.specs)):
        drawn = embeddings.draw_tsne_of_changes(poisons_of(records, args), args.data)
    elif args.figure == "tsne":
        drawn = embeddings.draw_tsne_of_features(records, args.specs)
    elif args.figure == "perturbations":
        drawn = _perturbations(records, args)
    elif args.figure in SCATTER_AXES:
        drawn = _scatter(records, args)
    else:
        drawn = _maps(records, args)
    args.file.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(args.file)
    print(json.dumps({"figure": str(args.file)}) if args.json else args.file)
    return 0


def _check_options(args: argparse.Namespace) -> None:
    """Raise SpecError for options that would be ignored."""
    refuse_idle(args, args.figure, FIGURE_OPTIONS, add_figure)
    only_of_poisons("--seed", args.seed, args.specs)
    gained = args.gain is None or "gain" in (args.normalize or ())
    require(gained, "--gain is the factor of --normalize gain, which is not given")
    sampled = args.baseline == "zero" or args.estimator == "sampling"
    require(sampled, "--baseline is of --estimator sampling, which is not given")


def _agreement(records: Records, args: argparse.Namespace) -> Figure:
    from raygrid.reports.analysis.agreement import agreement
    from raygrid.reports.figures.agreement import draw_agreement

    return draw_agreement(agreement(rows_of(records, args)))


def _perturbations(records: Records, args: argparse.Namespace) -> Figure:
    from raygrid.core.labels import telling
    from raygrid.reports.figures.changes import draw_changes
    from raygrid.reports.figures.gallery import names_of_classes

    finite = args.gain is None or 0 < args.gain < math.inf
    require(finite, f"gain is {args.gain}, allowed are numbers above 0")
    poisons = poisons_of(records, args)
    for poisoned in poisons:
        if not poisoned.replaced:
            raise DataError(f"{poisoned.spec} withholds images: there is nothing to draw")
    names = telling([poisoned.spec for poisoned in poisons])
    sets = {names[each.spec]: (each.clean, each.images) for each in poisons}
    called = partial(names_of_classes, poisons[0].spec, data=args.data)
    return draw_changes(sets, args.normalize or ["symmetric"], args.gain, called=called)


def _scatter(records: Records, args: argparse.Namespace) -> Figure:
    from raygrid.reports.analysis.questions import with_answers
    from raygrid.reports.figures.scatters import answer_against

    answer, accuracy = SCATTER_AXES[args.figure]
    rows = rows_of(records, args)
    asks = answer == "transfer_rate"
    victims = victims_of(records, args.figure, args.victims) if asks else []
    trials = with_answers(records, rows, answer, victims)
    return answer_against(trials, answer, accuracy)


def _maps(records: Records, args: argparse.Namespace) -> Figure:
    from raygrid.reports.analysis.explanation import grad_cam, need_captum, shapley
    from raygrid.reports.figures.gallery import names_of_classes
    from raygrid.reports.figures.maps import draw_maps
    from raygrid.trials.examples import first_of_classes

    need_captum()
    victims = [records.victim(spec) for spec in args.specs]
    if len({(v.trial.content, v.trial.data.key) for v in victims}) > 1:
        raise DataError("these trials have different test images; draw them one by one")
    test = victims[0].test
    images = test.rows(first_of_classes(test.labels, 10))
    maps = {}
    for victim in victims:
        x, y = images.floats(), images.labels
        if args.of == "predicted":
            y = victim(x.to(victim.device)).argmax(1).cpu()
        maps[victim.name] = (
            grad_cam(victim, x, y, args.layer)
            if args.figure == "grad-cam"
            else shapley(victim, x, y, args.estimator, args.samples, args.baseline)
        )
    called = names_of_classes(victims[0].name, images.labels, args.data)
    return draw_maps(images, maps, args.figure == "shapley", called)
