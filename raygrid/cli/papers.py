"""The arguments of `raygrid reproduce`: a parser for each paper, with its tables and figures.

The figures are listed, which takes seconds, for the paper alone that was named.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, get_args

from raygrid.cli.options import FilledLater, add_axis, add_fleet, add_options, add_running
from raygrid.core.errors import unknown
from raygrid.reproduce.papers import PAPERS, Paper, Scale

if TYPE_CHECKING:
    from raygrid.reproduce.figure_list import PaperFigure


SCALE_HELP = (
    "smoke: that everything runs, in minutes; quick: stand-ins on digits, minutes to hours of a "
    "CPU; screen: the paper's data and budgets, a fast victim, minutes of a core a trial, up to "
    "about an hour for each poison of a network and each purified set; "
    "small: as printed for 30 epochs at most; grid: as printed with fewer contrastive epochs; "
    "paper (default: quick)"
)


def add_reproduce(parser: argparse.ArgumentParser) -> None:
    """A parser for each paper; what is in it is read when it is the one that was asked for."""
    papers = parser.add_subparsers(
        required=True, metavar="PAPER", dest="paper", parser_class=FilledLater
    )
    for name, paper in PAPERS.items():
        papers.add_parser(
            name,
            help=paper.source,
            description=described(paper),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            fill=partial(_add_paper, name),
        )


def described(paper: Paper) -> str:
    """What a paper is, its tables line by line, and what has to be known of them."""
    width = max(map(len, paper.tables)) + 2
    lines = [f"{number:<{width}}{text}" for number, text in paper.tables.items()]
    usual = f", {paper.main} without it" if paper.main else ""
    head = f"Tables (`--table N`{usual}):"
    return "\n".join([paper.source, "", head, "", *lines, "", *paper.notes])


def figure_lines(figures: Mapping[str, PaperFigure | str]) -> str:
    """The figures of a paper, a line each; nothing without any."""
    lines = [
        f"{number:<7}{f'left out: {each}' if isinstance(each, str) else each.title}"
        for number, each in figures.items()
    ]
    if not lines:
        return ""
    return "\n".join(["\nFigures (`--figure N`, a PNG and a CSV under OUT/figures):\n", *lines, ""])


def _add_paper(name: str, parser: argparse.ArgumentParser) -> None:
    """The tables and figures of a paper, and how they are run."""
    from raygrid.reproduce.figure_list import (
        UNMEASURED_TABLES,
        drawings_of,
        drawn_figures_of,
        figures_of,
    )

    figures = figures_of(name)
    parser.description = f"{parser.description}\n{figure_lines(figures)}"
    known = {
        "table": ([*PAPERS[name].tables], UNMEASURED_TABLES.get(name, {})),
        "figure": ([*drawn_figures_of(name)], drawings_of(name)),
    }
    what = parser.add_mutually_exclusive_group(required=not PAPERS[name].main)
    for kind, (numbers, others) in known.items():
        if numbers:
            chosen = _one_of(kind, numbers, others)
            what.add_argument(f"--{kind}", type=chosen, metavar="N", help=", ".join(numbers))
    parser.set_defaults(figure=None, setups="")
    if PAPERS[name].main:
        parser.set_defaults(table=PAPERS[name].main)
    parser.add_argument("--scale", default="quick", choices=get_args(Scale), help=SCALE_HELP)
    parser.add_argument("--dataset", help="only this dataset of it")
    for axis in ("attacks", "defenses"):
        add_axis(parser, axis, "only these of it")
    add_axis(parser, "seeds", "whole numbers (0)")
    help_ = "AVATAR's noise predictor: a folder or hub id of diffusers, a file of score-SDE"
    parser.add_argument(
        "--diffusion", metavar="CHECKPOINT", default="", help=f"{help_} (fitted to clean images)"
    )
    if PAPERS[name].setups:
        parser.add_argument("--setups", metavar="FOLDER", help="folder with the official set-ups")
    parser.add_argument("--dry-run", action="store_true", help="print the plan, run nothing")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_fleet(parser)
    add_running(parser)
    add_options(parser)


def _one_of(kind: str, known: Sequence[str], others: Mapping[str, str]) -> Callable[[str], str]:
    def chosen(text: str) -> str:
        if text in known:
            return text
        if text in others:
            reason = f"{kind} {text} shows no data, it is {others[text]}"
            raise argparse.ArgumentTypeError(f"{reason}; those with data are {', '.join(known)}")
        raise argparse.ArgumentTypeError(unknown(kind, text, known))

    return chosen
