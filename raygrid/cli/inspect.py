"""`raygrid inspect`: what a file or folder of a poison holds, before it is used."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from raygrid.cli.options import options_of


def add_inspect(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument("path", type=Path, help="what file(path=...) would be given")
    parser.add_argument("--entry", default="", help="which array, for files with several")
    parser.add_argument("--against", metavar="DATASET", help="measure the change of its images")


def inspect_file(args: argparse.Namespace) -> int:
    """Print what there is to know."""
    from raygrid.datasets import DATASETS
    from raygrid.trials.inspection import look_into

    options = options_of(args)
    dataset = DATASETS.make(args.against) if args.against else None
    root = options.data.absolute()
    clean = None if dataset is None else dataset.seen(root).loaded(root).train
    facts = look_into(args.path, args.entry, clean)
    print(json.dumps(facts, indent=1) if args.json else _text(facts))
    return 0


def _text(facts: dict[str, Any]) -> str:
    lines = []
    for name, value in facts.items():
        if name == "entries":
            lines += [f"{'entry ' + key:<12} {_words(entry)}" for key, entry in value.items()]
        elif isinstance(value, dict):
            lines += [f"{name + ' ' + key:<12} {_words(each)}" for key, each in value.items()]
        else:
            lines.append(f"{name:<12} {_words(value)}")
    return "\n".join(lines)


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(each)}" for key, each in value.items())
    if isinstance(value, list):
        return " to ".join(map(_words, value)) if len(value) == 2 else str(value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
