"""The commands `raygrid evaluate` and `raygrid figure`: questions to trials that are finished."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raygrid.arguments import options_of
from raygrid.errors import DataError, SpecError
from raygrid.registry import coerce, load_plugins
from raygrid.remote import open_store
from raygrid.spec import parse_scalar, split_outside
from raygrid.store import ResultLog

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from raygrid.analysis import Records, Victim

Row = dict[str, Any]
MANY = 16  # columns that no terminal is wide enough for
QUESTIONS = (
    *("transferability", "robustness", "sets", "fidelity", "norms"),
    *("classes", "seeds", "compare", "cost"),
)
PAIRS = {
    "transfer-peak": ("transfer_rate", "peak_acc"),
    "transfer-final": ("transfer_rate", "final_acc"),
    "psnr-final": ("psnr", "final_acc"),
}
"""Scatters by name: what is asked of a poison, and the accuracy of the trial with it."""
FIGURES = ("tsne", "perturbations", "grad-cam", "shapley", *PAIRS)


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """The arguments of `evaluate`."""
    parser.add_argument("question", choices=QUESTIONS)
    parser.add_argument(
        "specs",
        nargs="*",
        help="trials run with --keep weights (classes: predictions); poisons for transferability; "
        "poisons or purified trials for fidelity; poisons that a D-VAE found for norms; "
        "seeds and cost: trials, or none for all of --out; "
        "compare: two or more defenses, or trials, each with all of its seeds",
    )
    parser.add_argument(
        "--metric",
        choices=("final_acc", "peak_acc"),
        default="final_acc",
        help="of seeds and compare",
    )
    parser.add_argument("--victims", nargs="+", default=[], help="of transferability: trials")
    parser.add_argument("--on", nargs="+", default=[], help="of sets: more poisons to try")
    parser.add_argument("--seed", type=int, default=0, help="of poisons (dataset/attack)")
    parser.add_argument("--radius", default="8/255", help="of robustness, in [0, 1]")
    parser.add_argument("--step", default="2/255", help="of robustness: size of a step")
    parser.add_argument("--steps", type=int, default=20, help="of robustness")
    parser.add_argument("--images", type=int, help="of robustness: only so many test images")
    _add_epoch(parser)


def add_figure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `figure`."""
    parser.add_argument("figure", choices=FIGURES)
    parser.add_argument(
        "specs",
        nargs="+",
        help="trials run with --keep weights (tsne: features), or poisons; "
        f"finished trials for {', '.join(PAIRS)}",
    )
    parser.add_argument("--file", type=Path, required=True, help="picture to write")
    parser.add_argument("--seed", type=int, default=0, help="of poisons (dataset/attack)")
    parser.add_argument("--victims", nargs="+", default=[], help="of transfer-...: clean trials")
    parser.add_argument("--layer", default="", help="of grad-cam, e.g. body.layer3")
    parser.add_argument("--of", choices=("label", "predicted"), default="label", help="class")
    parser.add_argument("--estimator", choices=("gradient", "sampling"), default="gradient")
    parser.add_argument("--samples", type=int, default=200, help="of shapley")
    _add_epoch(parser)


def _add_epoch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--epoch",
        choices=("last", "peak"),
        default="last",
        help="whose weights; peak: of trials run with --keep peak",
    )


def evaluate(args: argparse.Namespace) -> int:
    """Answer a question and print its rows."""
    answers: dict[str, Callable[[Records, argparse.Namespace], list[Row]]] = {
        "transferability": _transferability,
        "robustness": _robustness,
        "sets": _sets,
        "fidelity": _fidelity,
        "norms": _norms,
        "classes": _classes,
        "seeds": _seeds,
        "compare": _compare,
        "cost": _cost,
    }
    if not args.specs and args.question not in ("seeds", "cost"):
        raise SpecError(f"{args.question} needs the spec of a trial or poison")
    rows = answers[args.question](_records(args), args)
    print(json.dumps(rows, indent=1) if args.json else text(rows))
    return 0


def figure(args: argparse.Namespace) -> int:
    """Draw a figure and say where it is."""
    from raygrid import analysis

    records = _records(args)
    if args.figure == "tsne":
        drawn = analysis.draw_tsne(records, args.specs)
    elif args.figure == "perturbations":
        drawn = analysis.draw_perturbations([records.poisoned(s, args.seed) for s in args.specs])
    elif args.figure in PAIRS:
        drawn = _scatter(records, args)
    else:
        drawn = _maps(records, args)
    args.file.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(args.file)
    print(json.dumps({"figure": str(args.file)}) if args.json else args.file)
    return 0


def _records(args: argparse.Namespace) -> Records:
    from raygrid.analysis import Records

    options = options_of(args)
    load_plugins(options.imports)
    return Records(open_store(options.store_url), options.data, args.epoch)


def _transferability(records: Records, args: argparse.Namespace) -> list[Row]:
    from raygrid.analysis import transferability

    victims = _victims(records, args.question, args.victims)
    return transferability([records.poisoned(s, args.seed) for s in args.specs], victims)


def _victims(records: Records, what: str, specs: Sequence[str]) -> list[Victim]:
    if not specs:
        raise SpecError(f"{what} needs --victims: trials on clean data with kept weights")
    return [records.victim(spec) for spec in specs]


def _robustness(records: Records, args: argparse.Namespace) -> list[Row]:
    from raygrid.analysis import robustness
    from raygrid.defenses.ascent import Ball

    radius, step = (coerce(parse_scalar(t), float, 0.0) for t in (args.radius, args.step))
    if not 0 <= radius <= 1 or step <= 0 or args.steps < 0 or (args.images or 1) < 1:
        raise SpecError(
            f"radius {args.radius}, step {args.step}, steps {args.steps}, images {args.images}: "
            "allowed are 0 to 1, above 0, from 0 and from 1"
        )
    ball = Ball(radius, args.steps, step)
    return robustness([records.victim(spec) for spec in args.specs], ball, args.images)


def _sets(records: Records, args: argparse.Namespace) -> list[Row]:
    from raygrid.analysis import accuracy_on_sets

    others = {text: records.poisoned(text, args.seed).images for text in args.on}
    return [row for spec in args.specs for row in accuracy_on_sets(records, spec, others)]


def _fidelity(records: Records, args: argparse.Namespace) -> list[Row]:
    from raygrid.analysis import fidelity_of_poison, fidelity_of_purified

    rows: list[Row] = []
    device = records.worker.device
    for text in args.specs:
        if len(list(split_outside(text, "/"))) == 2:
            rows += fidelity_of_poison(records.poisoned(text, args.seed), device)
        else:
            rows += fidelity_of_purified(records, text, device)
    return rows


def _norms(records: Records, args: argparse.Namespace) -> list[Row]:
    from raygrid.analysis import norms_of_disentangled

    return [norms_of_disentangled(records, text, args.seed) for text in args.specs]


def _classes(records: Records, args: argparse.Namespace) -> list[Row]:
    from raygrid.analysis import by_class

    return [row for spec in args.specs for row in by_class(records, spec)]


def _seeds(records: Records, args: argparse.Namespace) -> list[Row]:
    from raygrid.analysis import over_seeds

    return over_seeds(_rows(records, args), args.metric)


def _compare(records: Records, args: argparse.Namespace) -> list[Row]:
    from raygrid.analysis.comparing import compare, is_trial
    from raygrid.resolve import resolve

    sides = [str(resolve(s, records.catalog).spec) if is_trial(s) else s for s in args.specs]
    return compare(_results(args).values(), sides, args.metric)


def _cost(records: Records, args: argparse.Namespace) -> list[Row]:
    from raygrid.analysis import costs

    return costs(_rows(records, args), records.store, _results(args).values())


def _rows(records: Records, args: argparse.Namespace) -> list[Row]:
    """The rows of the given specs, or all of the output folder; DataError if one is missing."""
    from raygrid.resolve import resolve

    rows = _results(args)
    wanted = [str(resolve(spec, records.catalog).spec) for spec in args.specs] or list(rows)
    for spec in wanted:
        if spec not in rows:
            raise DataError(f"there is no result of {spec} under {args.out}")
    return [rows[spec] for spec in wanted]


def _results(args: argparse.Namespace) -> dict[str, Row]:
    """All rows of the output folder by spec."""
    return {row["spec"]: row for row in ResultLog(args.out.absolute() / "results.jsonl").rows()}


def _scatter(records: Records, args: argparse.Namespace) -> Figure:
    from raygrid import analysis, figures

    answer, accuracy = PAIRS[args.figure]
    rows = _rows(records, args)
    asks = answer == "transfer_rate"
    victims = _victims(records, args.figure, args.victims) if asks else []
    trials = analysis.with_answers(records, rows, answer, victims)
    return figures.answer_against(trials, answer, accuracy)


def _maps(records: Records, args: argparse.Namespace) -> Figure:
    from raygrid import analysis
    from raygrid.analysis.explaining import need_captum
    from raygrid.analysis.pictures import examples

    need_captum()
    victims = [records.victim(spec) for spec in args.specs]
    if len({(v.trial.content, v.trial.data.key) for v in victims}) > 1:
        raise DataError("these trials have different test images; draw them one by one")
    test = victims[0].test
    images = test.rows(examples(test))
    maps = {}
    for victim in victims:
        x, y = images.floats(), images.labels
        if args.of == "predicted":
            y = victim(x.to(victim.device)).argmax(1).cpu()
        maps[victim.name] = (
            analysis.grad_cam(victim, x, y, args.layer)
            if args.figure == "grad-cam"
            else analysis.shapley(victim, x, y, args.estimator, args.samples)
        )
    return analysis.draw_maps(images, maps, signed=args.figure == "shapley")


def text(rows: Sequence[Row]) -> str:
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
        return f"{100 * value:.2f} %"
    if name in ("p", "p_holm"):
        return f"{value:.2g}"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
