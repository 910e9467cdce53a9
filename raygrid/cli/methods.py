"""`raygrid list`: every method with its card, as a person reads it, as JSON, as a page."""

from __future__ import annotations

import argparse
import inspect
import json
import re
from collections.abc import Iterator
from typing import Any

from raygrid.core.errors import SpecError, unknown
from raygrid.core.labels import budget_text
from raygrid.core.literals import format_scalar
from raygrid.core.registry import Method, Registry, require
from raygrid.core.spec import TrialSpec, split_outside
from raygrid.core.text import decimal, percent, wrapped

_MEANING = re.compile(r"^    (\w+): [^#\n]*?  # (.+)$", re.MULTILINE)
"""A field of a method and what the comment behind it says."""


def registries() -> dict[str, Registry[Any]]:
    """All registries by the plural of their kind."""
    from raygrid.architectures import ARCHITECTURES
    from raygrid.attacks import ATTACKS
    from raygrid.datasets import DATASETS
    from raygrid.defenses import DEFENSES
    from raygrid.learners import LEARNERS
    from raygrid.protocols import PROTOCOLS

    return {
        "datasets": DATASETS,
        "attacks": ATTACKS,
        "defenses": DEFENSES,
        "architectures": ARCHITECTURES,
        "learners": LEARNERS,
        "protocols": PROTOCOLS,
    }


def list_methods(args: argparse.Namespace) -> int:
    """Print the methods of a kind, or of all kinds."""
    two = args.json and args.markdown
    require(not two, "--json and --markdown are two forms: leave one of them out")
    kinds = registries()
    if args.kind is not None and args.kind not in kinds:
        raise SpecError(unknown("kind", args.kind, kinds))
    chosen = {args.kind: kinds[args.kind]} if args.kind else kinds
    made = {kind: [r.make(name) for name in r] for kind, r in chosen.items()}
    if args.json:
        found = {kind: [method_facts(method) for method in each] for kind, each in made.items()}
        print(json.dumps(found[args.kind] if args.kind else found, indent=1))
    elif args.markdown:
        print("\n".join(methods_page(kind, methods) for kind, methods in made.items()), end="")
    else:
        for kind, methods in made.items():
            print(f"{kind}:", *_lines(kind, methods), sep="\n")
    return 0


def _lines(kind: str, methods: list[Method]) -> Iterator[str]:
    """A line a method; of attacks with norm and budget, whose paper is their full name."""
    if kind != "attacks":
        yield from (wrapped(f"  {method.id:<22} {_summary(method)}", 25) for method in methods)
        return
    yield f"  {'name':<22} {'norm':<5} {'budget':<8} paper"
    for method in methods:
        norm, size = _budget_of(method)
        yield wrapped(f"  {method.id:<22} {norm:<5} {size:<8} {method.card.paper}", 40)
    yield "`raygrid show NAME` says what it does, its parameters and what its paper printed"


def _budget_of(method: Method) -> tuple[str, str]:
    """Norm and size of a method's default budget, dashes for one without."""
    budget = getattr(method, "budget", None)
    if budget is None:
        return "–", "–"
    norm = str(budget).rpartition(":")[0]
    size = budget_text(str(budget)).split(" ")[-1]
    return norm or "linf", "no limit" if size == "255/255" else size


def method_facts(method: Method) -> dict[str, Any]:
    """A method's id, summary, defaults and card."""
    card = method.card
    return {
        "id": method.id,
        "summary": _summary(method),
        "defaults": _defaults(method),
        "version": method.version,
        "card": {
            "paper": card.paper,
            "code": card.code,
            "published": dict(card.published),
            "needs": card.needs,
            "cost": card.cost,
            "notes": card.notes,
        },
    }


def _summary(method: Method) -> str:
    return (type(method).__doc__ or "").strip().splitlines()[0]


def _defaults(method: Method) -> dict[str, Any]:
    """What its key is made of, and the fields that are too young to be part of it."""
    shown = {k: v for k, v in method.resolved().items() if k not in ("id", "version")}
    return shown | {name: getattr(method, name) for name in sorted(method.younger - shown.keys())}


def methods_page(kind: str, methods: list[Method]) -> str:
    """Markdown about all methods of a kind: what they do, parameters, sources, printed numbers."""
    head = (
        f"# {kind.capitalize()}\n\nWhat `raygrid list {kind} --markdown` prints: every method with "
        "its parameters, its source and what its paper printed.\n"
    )
    return "\n".join([head, *(method_section(method) for method in methods)])


def method_section(method: Method, tables: bool = True) -> str:
    """What a page says of one method.

    tables: whether printed numbers stand in a table, for which a terminal is too narrow.
    """
    card = method.card
    facts = [("Paper", card.paper), ("Code", card.code), ("Needs", card.needs)]
    facts += [("Cost", card.cost), ("Notes", card.notes)]
    said = [f"- **{name}**: {_plain(text)}" for name, text in facts if text not in ("", "none")]
    blocks = [f"## {method.id}", inspect.getdoc(type(method)) or "", "\n".join(said)]
    blocks += [_parameters(method), _published(method) if tables else _published_lines(method)]
    return "\n\n".join(filter(None, blocks)) + "\n"


def _plain(text: str) -> str:
    """A sentence of a card as Markdown, whose signs it does not mean, but for its code."""
    spans = re.split(r"(`[^`]*`)", text)
    escaped = (s if s[:1] == "`" else re.sub(r"([*_<>\[\]|])", r"\\\1", s) for s in spans)
    return "".join(escaped)


def _parameters(method: Method) -> str:
    meanings = _meanings(type(method))
    rows = [
        f"| `{name}` | `{_value(value)}` | {_plain(meanings.get(name, ''))} |"
        for name, value in _defaults(method).items()
    ]
    return "\n".join(["| parameter | default | |", "|---|---|---|", *rows]) if rows else ""


def _value(value: Any) -> str:
    """A default as a spec takes it."""
    if value is None:
        return "none"
    return format_scalar(value) if isinstance(value, bool | int | float | str) else str(value)


def _meanings(kind: type[Method]) -> dict[str, str]:
    """What the comments behind the fields of a method say, its own before inherited ones."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        if each.__module__.startswith("raygrid.") or each is kind:
            found |= dict(_MEANING.findall(_source(each)))
    return found


def _source(kind: type) -> str:
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):  # a method that somebody typed into a session
        return ""


def _published(method: Method) -> str:
    rows = [
        f"| {' | '.join(f'`{part}`' for part in cell)} | {decimal(value, 2, 2)} |"
        for cell, value in _cells(method)
    ]
    head = ["| dataset | attack | defense | architecture | learner | protocol | printed, % |"]
    return "\n".join([*head, "|---|---|---|---|---|---|---|", *rows]) if rows else ""


def _published_lines(method: Method) -> str:
    lines = [f"- {percent(value, 2)}: `{'/'.join(cell)}`" for cell, value in _cells(method)]
    return "\n".join(["Printed test accuracies:", "", *lines]) if lines else ""


def _cells(method: Method) -> Iterator[tuple[tuple[str, ...], float]]:
    """The axes of each number of a card, without the seed, and the number as a fraction."""
    for text, value in method.card.published.items():
        *axes, _ = split_outside(str(TrialSpec.parse(text)), "/")
        yield tuple(axes), value
