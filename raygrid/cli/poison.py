"""`raygrid poison`: a poisoned dataset by itself, looked at, drawn and exported."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from raygrid.cli.common import check_picture
from raygrid.cli.options import options_of
from raygrid.core.literals import parse_scalar
from raygrid.core.registry import require
from raygrid.core.spec import Part, parse_ratio
from raygrid.storage.mirrored import open_store

if TYPE_CHECKING:
    from raygrid.trials.poisons import Poisoned

PoisonForm = Literal["png", "npz", "pt", "parquet", "triples"]
POISON_FORMS: tuple[PoisonForm, ...] = get_args(PoisonForm)


def add_poison(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument("dataset", help="e.g. cifar10")
    parser.add_argument("attack", help="e.g. em or 'lsp(patch=4)'")
    parser.add_argument("--budget", help="8/255, l2:1.3, 2x")
    parser.add_argument("--ratio", default="1.0", help="share of the images that is poisoned")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--export", type=Path, metavar="DIR", help="new folder for the images")
    parser.add_argument(
        "--form",
        choices=POISON_FORMS,
        help=f"of --export: {', '.join(POISON_FORMS)} (default: {POISON_FORMS[0]})",
    )
    parser.add_argument(
        "--from",
        type=Path,
        metavar="DIR",
        dest="taken",
        help="take the poison from an export of it instead of making it",
    )
    parser.add_argument("--learner", default="supervised", help="the victim's, for set-ups")
    parser.add_argument("--protocol", default="quick", help="the victim's, for set-ups")
    parser.add_argument("--gallery", type=Path, metavar="PNG", help="draw one image a class")


def make_poison(args: argparse.Namespace) -> int:
    from raygrid.engine.aloud import TellingWorker
    from raygrid.reports.figures import gallery
    from raygrid.trials import export, poisons
    from raygrid.trials.catalog import Catalog

    options = options_of(args)
    form = _form_of(args)
    attack = _attack_of(args)
    if args.gallery is not None:
        check_picture(args.gallery)
    if args.export is not None:
        export.check_new(args.export)
    store = open_store(options.store_url)
    text = f"{args.dataset}/{attack}@{parse_ratio(args.ratio)!r}"
    if args.taken is not None:
        export.adopt(args.taken, text, Catalog(store, options.data), args.seed)
    worker = TellingWorker(store, options)
    victim = (args.learner, args.protocol)
    made = poisons.make(
        text, Catalog(store, options.data), worker.tell_and_fetch, args.seed, victim
    )
    facts = poisons.inspect(made)
    if args.export is not None:
        facts |= _exported(made, args.export, form, args.seed)
    if args.gallery is not None:
        facts["gallery"] = str(gallery.gallery(made, args.gallery, data=options.data))
    if args.json:
        print(json.dumps(facts, indent=1))
    else:
        for name, value in facts.items():
            print(f"{name:<14} {value}")
    return 0


def _exported(made: Poisoned, folder: Path, form: PoisonForm, seed: int) -> dict[str, str]:
    """Write the images, or the benchmark's three pickles of a set-up; says where they are."""
    from raygrid.protocols.setups.triples import write_triple
    from raygrid.trials.export import export

    if form != "triples":
        return {"manifest": str(export(made, folder, form))}
    assert made.triple is not None, "its attack is made for a target"
    write_triple(made.triple, folder / str(seed))
    return {"triple": str(folder / str(seed))}


def _attack_of(args: argparse.Namespace) -> Part:
    """The attack with the budget that was asked for."""
    attack = Part.parse(args.attack)
    if args.budget is None:
        return attack
    own = dict(attack.params).get("budget")
    two = f"{args.attack} has the budget {own}, --budget says {args.budget}: give one"
    require(own is None, two)
    return attack.with_params(budget=parse_scalar(args.budget))


def _form_of(args: argparse.Namespace) -> PoisonForm:
    """The form of an export; raises SpecError for one that nothing will have."""
    exported = args.form is None or args.export is not None
    require(exported, f"--form {args.form} needs an export; name its folder with --export")
    if args.form == "triples":
        from raygrid.attacks import ATTACKS

        attack = ATTACKS[Part.parse(args.attack).name]
        ratio = parse_ratio(args.ratio)
        poison = args.attack if ratio else f"{args.attack}@{ratio}"
        why = f"{poison} is made for no target; triples hold the poisons of a set-up"
        require(attack.on_target and ratio > 0, why)
    form: PoisonForm = args.form or POISON_FORMS[0]
    return form
