"""The command `raygrid show`: one method, or one finished trial by its spec or key."""

from __future__ import annotations

import argparse
import difflib
import json
import shlex
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

from raygrid.cli.common import say_broken
from raygrid.cli.methods import method_section, registries
from raygrid.core.errors import DataError, SpecError, unknown
from raygrid.core.options import Options
from raygrid.core.registry import Method
from raygrid.core.spec import TrialSpec
from raygrid.core.text import NO_NUMBER, clock, percent, wrapped
from raygrid.storage.results import Json, log_of
from raygrid.tracking.journal import picture_of

LEAST_KEY_LETTERS = 6  # letters of a key that may stand for it
COPIED_LINES = ("spec", "again", "error")
"""Lines that are to be taken as they are; a terminal cuts them anywhere."""
CURVE_EPOCHS = 12  # epochs of a curve; a line of a terminal holds no more


def add_show(parser: argparse.ArgumentParser) -> None:
    """The argument of `show`."""
    parser.add_argument(
        "what",
        nargs="+",
        metavar="WHAT",
        help="a method (em, resnet18, `defenses op` where two kinds have the name), or a finished "
        "trial: its spec, or how its key begins",
    )


def show_one(args: argparse.Namespace) -> int:
    """Print a method's page, one for each kind that has the name, or what a trial left."""
    *kind, what = args.what
    found = {k: r for k, r in registries().items() if what in r and kind in ([], [k])}
    if kind and not found:
        known = [k for k, r in registries().items() if what in r]
        raise SpecError(
            f"{what!r} is a method of {' and '.join(known) or 'no kind'}, not of {' '.join(kind)!r}"
        )
    if found:
        show_methods({kind: registry.make(what) for kind, registry in found.items()}, args.json)
        return 0
    names = {name for registry in registries().values() for name in registry}
    log = log_of(args.out)
    say_broken(log)
    row = find_row(list(log.rows()), what, args.out, names)
    if args.json:
        print(json.dumps(row, indent=1))
    else:
        for name, text in trial_page(row, args):
            line = f"{name:<10} {text}"
            print(line if name in COPIED_LINES else wrapped(line, 11))
    return 0


def show_methods(methods: dict[str, Method], as_json: bool) -> None:
    """Print the pages of methods by kind; of several under a name, the kind above each."""
    if as_json:
        pages = [{"kind": kind, "page": method_section(m)} for kind, m in methods.items()]
        print(json.dumps(pages[0] if len(pages) == 1 else pages))
        return
    for kind, method in methods.items():
        page = method_section(method, tables=not sys.stdout.isatty())
        page = page if len(methods) == 1 else f"# {kind}\n\n{page}\n"
        if sys.stdout.isatty():
            show_page(page)
        else:
            print(page, end="")


def show_page(page: str) -> None:
    """Print Markdown as a terminal shows it."""
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(page))


def find_row(rows: list[Json], what: str, out: Path, methods: Collection[str]) -> Json:
    """The row of a spec or of the key that begins so; raises SpecError or DataError if none is.

    rows: of one spec the last counts; a key may be that of an earlier one.
    """
    if "/" in what:
        spec = str(TrialSpec.parse(what))
        spelled = (what, spec, as_in_rows(spec))
        found = [row for row in rows if row["spec"] in spelled]
        if not found:
            near = difflib.get_close_matches(spec, [row["spec"] for row in rows], n=1, cutoff=0.0)
            raise DataError(f"there is no result of {spec} under {out}{_nearest(near)}")
        return found[-1]
    found = [row for row in rows if len(what) >= LEAST_KEY_LETTERS and row["key"].startswith(what)]
    if len(found) > 1:
        keys = ", ".join(row["key"] for row in found)
        raise SpecError(f"{len(found)} keys begin with {what}: {keys}; give more letters")
    if not found:
        said = unknown("method", what, methods).partition("; known")[0]
        raise SpecError(
            f"{said}; no key under {out} begins so (from {LEAST_KEY_LETTERS} letters on); "
            "a spec has slashes"
        )
    return found[0]


def as_in_rows(spec: str) -> str:
    """A spec as rows have it: without defaults, multiples of a budget written out.

    One with methods that are not installed here stays as it is.
    """
    from raygrid.trials.resolve import resolve

    try:
        return str(resolve(spec, None).spec)
    except SpecError:
        return spec


def _nearest(near: list[str]) -> str:
    return f"; the nearest one is {near[0]}" if near else ", which holds no results"


def trial_page(row: Json, args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """What a person asks of a trial, a name and a text a line."""
    yield "spec", row["spec"]
    yield "key", row["key"]
    yield "status", ", ".join([row["status"], *(row.get("marks") or ())])
    yield "final", percent(row.get("final_acc"), 2)
    peak = row.get("peak_acc") if row.get("peak_acc") is not None else row.get("knn_peak")
    yield "peak", f"{percent(peak, 2)} (epoch {row.get('peak_epoch') or NO_NUMBER})"
    yield "published", _published(row)
    planned, ran = row.get("epochs_planned") or 0, row.get("epochs_run") or 0
    where = f"{row.get('device') or 'a device not known'}, commit {row.get('commit') or NO_NUMBER}"
    yield "run", f"{ran} of {planned} epochs in {clock(row.get('seconds') or 0.0)} on {where}"
    if row.get("history"):
        yield "by epoch", _curve(row["history"])
    for kind, key in (row.get("artifacts") or {}).items():
        picture = picture_of(args.out, key) if kind == "poison" else None
        yield kind, f"{key}  {picture}" if picture and picture.is_file() else key
    yield "again", _again(row["spec"], args)
    if row.get("error"):
        yield "error", row["error"].rstrip()


def _again(spec: str, args: argparse.Namespace) -> str:
    """The command that runs a trial once more, from this folder."""
    words = ["raygrid", "run", spec, "--out", "again"]
    words += [word for module in args.imports for word in ("--import", module)]
    words += ["--data", str(args.data)] if args.data != Options().data else []
    return shlex.join(words)


def _published(row: Json) -> str:
    from raygrid.tracking.published import beside, published_of

    found = published_of([row["spec"]]).get(row["spec"])
    said = beside(found, row.get("marks") or ())
    return f"{percent(found.value, 2)} ({said})" if found else NO_NUMBER


def _curve(history: list[dict[str, float]]) -> str:
    """Test accuracy in percent of at most CURVE_EPOCHS epochs, evenly, with the last one."""
    step = -(-len(history) // CURVE_EPOCHS)
    kept = history[::-1][::step][::-1]
    said = " ".join(f"{100 * e['test_acc']:.0f}" for e in kept if "test_acc" in e)
    return f"{said} (test accuracy, %{'' if step == 1 else f', every {step} epochs'})"
