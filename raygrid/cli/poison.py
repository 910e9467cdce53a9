"""`raygrid poison`: a poisoned dataset by itself, looked at, drawn and exported."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from raygrid.cli.common import check_picture
from raygrid.cli.options import options_of
from raygrid.core.errors import SpecError
from raygrid.core.plugins import load_plugins
from raygrid.core.spec import Part, parse_ratio, parse_scalar
from raygrid.storage.mirrored import open_store

if TYPE_CHECKING:
    from raygrid.protocols.setups.triples import Triple


def add_poison(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument("dataset", help="e.g. cifar10")
    parser.add_argument("attack", help="e.g. em or 'lsp(patch=4)'")
    parser.add_argument("--budget", help="8/255, l2:1.3, 2x")
    parser.add_argument("--ratio", default="1.0", help="share of the images that is poisoned")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--export", type=Path, metavar="DIR", help="new folder for the images")
    parser.add_argument("--form", choices=("png", "npz", "pt", "parquet", "triples"), default="png")
    parser.add_argument(
        "--from",
        type=Path,
        metavar="DIR",
        dest="taken",
        help="take the poison from an export of it instead of making it",
    )
    parser.add_argument("--learner", default="supervised", help="of the victim, for set-ups")
    parser.add_argument("--protocol", default="quick", help="of the victim, for set-ups")
    parser.add_argument("--gallery", type=Path, metavar="PNG", help="draw one image a class")


def make_poison(args: argparse.Namespace) -> int:
    from raygrid.engine.aloud import TellingWorker
    from raygrid.reports.figures import gallery
    from raygrid.trials import export, poisons
    from raygrid.trials.catalog import Catalog

    options = options_of(args)
    load_plugins(options.imports)
    if args.gallery is not None:
        check_picture(args.gallery)
    if args.export is not None:
        export.check_new(args.export)
    store = open_store(options.store_url)
    attack = Part.parse(args.attack)
    if args.budget is not None:
        attack = attack.with_params(budget=parse_scalar(args.budget))
    text = f"{args.dataset}/{attack}@{parse_ratio(args.ratio)!r}"
    if args.taken is not None:
        export.adopt(args.taken, text, Catalog(store, options.data), args.seed)
    worker = TellingWorker(store, options)
    victim = (args.learner, args.protocol)
    made = poisons.make(
        text, Catalog(store, options.data), worker.tell_and_fetch, args.seed, victim
    )
    facts = poisons.inspect(made)
    if args.export is not None and args.form == "triples":
        facts["triple"] = str(_write_triple(made.triple, args.export / str(args.seed), made.spec))
    elif args.export is not None:
        facts["manifest"] = str(export.export(made, args.export, args.form))
    if args.gallery is not None:
        facts["gallery"] = str(gallery.gallery(made, args.gallery, data=options.data))
    if args.json:
        print(json.dumps(facts, indent=1))
    else:
        for name, value in facts.items():
            print(f"{name:<14} {value}")
    return 0


def _write_triple(triple: Triple | None, folder: Path, spec: str) -> Path:
    """The benchmark's three pickles of one set-up."""
    from raygrid.protocols.setups.triples import write_triple

    if triple is None:
        raise SpecError(f"{spec} is made for no target; triples hold the poisons of a set-up")
    write_triple(triple, folder)
    return folder
