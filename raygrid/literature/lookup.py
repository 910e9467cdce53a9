"""Lookup: what the papers printed for a trial, under the names that papers share.

A cell that no file of `data/` has may still be on the card of a method, as of one's own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

from raygrid.architectures import ARCHITECTURES
from raygrid.attacks import ATTACKS
from raygrid.core.errors import SpecError, unknown
from raygrid.core.registry import Registry, cached, require
from raygrid.core.spec import Part, TrialSpec
from raygrid.core.text import decimal
from raygrid.datasets import DATASETS
from raygrid.defenses import DEFENSES
from raygrid.learners import LEARNERS
from raygrid.literature.names import METRIC_NAMES
from raygrid.literature.printed import Apart, Printed
from raygrid.literature.reference import printed_rows
from raygrid.literature.shared_names import cell_key, methods_of, protocol_of
from raygrid.protocols import PROTOCOLS

METHOD_REGISTRIES: tuple[Registry[Any], ...] = (
    *(ATTACKS, DEFENSES, ARCHITECTURES, DATASETS, LEARNERS, PROTOCOLS),
)
CONTRADICTION = 0.05  # papers contradict each other from this difference on, as a fraction


@dataclass(frozen=True)
class PublishedValue:
    """One published number of a paper, with every table that prints it. Fractions.

    made: attack, defense, architecture and dataset as that paper ran them; protocol: of its trials.
    remarks: what a reader has to know of it beyond its place.
    """

    paper: str
    made: tuple[str, str, str, str]
    protocol: str
    tables: tuple[str, ...]
    value: float
    std: float | None
    suspect: bool
    remarks: tuple[str, ...]

    def stands_in(self, paper: str, table: str) -> bool:
        """Whether that table prints it."""
        return self.paper == paper and table in self.tables

    def cite(self) -> str:
        """Paper and tables, as in `apbench T3, T16`; `Doe et al. 2025 card` of a card's number."""
        return f"{self.paper} {', '.join('T' + t if t[0].isdigit() else t for t in self.tables)}"


@dataclass(frozen=True)
class Finding:
    """What is published for one cell.

    apart: what sets `best` apart from what was asked for: the paper if its protocol is another
        one, else the settings that it has of this protocol and those of its methods that go by the
        same name only, else nothing. Its text is what tables say of it.
    """

    best: PublishedValue
    apart: Apart
    others: tuple[PublishedValue, ...]

    @property
    def own(self) -> bool:
        """Whether `best` was made with the protocol and the very methods that were asked for."""
        return not self.apart

    @property
    def contradicting(self) -> tuple[PublishedValue, ...]:
        """Numbers of the others, not suspect themselves, that are 5 points or more away."""
        return tuple(
            f
            for f in self.others
            if not f.suspect and abs(f.value - self.best.value) >= CONTRADICTION - 1e-9
        )

    def printed(self) -> Printed:
        """Its best number as it stands beside a measured one."""
        best, against = self.best, self.contradicting
        return Printed(
            value=best.value,
            source=best.cite(),
            apart=self.apart,
            std=best.std,
            suspect=best.suspect,
            notes=best.remarks,
            contradicting=tuple(f"{f.cite()}: {decimal(f.value, 2, 2)}" for f in against),
        )


def find(
    spec: TrialSpec | str, measure: str = "final_acc", table: tuple[str, str] = ("", "")
) -> Finding | None:
    """The published numbers of a cell, best one first; None if no paper has it.

    table: paper and number of the one whose own number comes before all others.

    `seed` does not matter. The protocol does: the number of the paper whose protocol it is comes
    first, else the first paper that has one; numbers marked as suspect come last. Those of cards
    count where no paper's file has the cell.
    """
    spec = TrialSpec.parse(spec) if isinstance(spec, str) else spec
    cell = cell_key(spec), measure
    figures = _index().get(cell) or _on_cards().get(cell)
    if not figures:
        return None
    protocol, methods = protocol_of(spec), methods_of(spec)

    def distance(figure: PublishedValue) -> tuple[bool, ...]:
        return (
            not figure.stands_in(*table),
            figure.suspect,
            _name(figure.protocol) != _name(protocol),
            figure.protocol != protocol,
            figure.made != methods,
        )

    best, *others = sorted(figures, key=distance)
    return Finding(best, _apart(best, protocol, methods), tuple(others))


def _apart(best: PublishedValue, protocol: str, methods: tuple[str, str, str, str]) -> Apart:
    """What sets a number apart from a cell of this protocol and these methods."""
    pairs = zip(best.made, methods, strict=True)
    unlike = tuple(theirs for theirs, ours in pairs if theirs != ours)
    if best.protocol == protocol:
        return Apart(methods=unlike)
    if _name(best.protocol) != _name(protocol):
        return Apart(best.paper)
    settings = " and ".join(_settings_unlike(best.protocol, protocol))
    return Apart(best.paper, settings, unlike)


def _name(protocol: str) -> str:
    return Part.parse(protocol).name


def _settings_unlike(theirs: str, ours: str) -> Iterator[str]:
    """The settings of a protocol that differ, as the first has them; none if it is not there."""
    with suppress(SpecError):
        printed, wanted = PROTOCOLS.make(theirs), PROTOCOLS.make(ours)
        for name in (field.name for field in fields(printed)):
            value = getattr(printed, name)
            if value != getattr(wanted, name):
                yield f"its own {name}" if value is None else f"{name}={value}"


def check_asked(spec: TrialSpec, measure: str) -> None:
    """Raise SpecError for methods that neither raygrid nor a paper has, and for other measures."""
    for registry, parts in _parts_of(spec):
        for part in parts:
            if part.name in registry or part.name not in _printed_names()[registry.kind]:
                registry.make(part)
    known = sorted(set(METRIC_NAMES.values()))  # a list compares even what has no hash
    require(measure in known, unknown("measure", measure, known))


def _parts_of(spec: TrialSpec) -> Iterator[tuple[Registry[Any], tuple[Part, ...]]]:
    yield DATASETS, (spec.dataset,)
    yield ATTACKS, (spec.attack,)
    yield DEFENSES, spec.defense
    yield ARCHITECTURES, (spec.architecture,)
    yield LEARNERS, (spec.learner,)
    yield PROTOCOLS, (spec.protocol,)


@cache
def _printed_names() -> dict[str, set[str]]:
    """Names in the tables of papers by kind, also those of means and of what raygrid has not."""
    found: dict[str, set[str]] = {}
    for text in {row[name] for row in printed_rows() for name in ("cell", "made") if row[name]}:
        for registry, parts in _parts_of(TrialSpec.parse(text)):
            found.setdefault(registry.kind, set()).update(part.name for part in parts)
    return found


@cached
def _index() -> dict[tuple[str, str], list[PublishedValue]]:
    index: dict[tuple[str, str], list[PublishedValue]] = {}
    for row in printed_rows():
        if row["cell"] is None:
            continue
        key = (cell_key(TrialSpec.parse(row["cell"])), row["measure"])
        new = PublishedValue(
            paper=row["paper"],
            made=methods_of(TrialSpec.parse(row["made"])),
            protocol=protocol_of(TrialSpec.parse(row["made"])),
            tables=(row["table"],),
            value=row["accuracy"],
            std=row["accuracy_std"],
            suspect=row["suspect"],
            remarks=row["remarks"],
        )
        _join(index.setdefault(key, []), new)
    return index


@cached
def _on_cards() -> dict[tuple[str, str], list[PublishedValue]]:
    """The numbers of the cards of all methods."""
    index: dict[tuple[str, str], list[PublishedValue]] = {}
    cards = (registry[name].card for registry in METHOD_REGISTRIES for name in registry)
    for card, text, value in ((c, *item) for c in cards for item in c.published.items()):
        spec = TrialSpec.parse(text)
        attack = spec.attack.name
        on_target = attack in ATTACKS and ATTACKS[attack].on_target
        paper = re.split("[(;,:]", card.paper)[0].strip() or card.paper
        made, protocol = methods_of(spec), protocol_of(spec)
        new = PublishedValue(paper, made, protocol, ("card",), value, None, False, ())
        measure = "target_success" if on_target else "final_acc"
        _join(index.setdefault((cell_key(spec), measure), []), new)
    return index


@cached
def printed_networks() -> tuple[str, ...]:
    """The architectures here of which papers printed numbers, the one with most of them first."""
    specs = (TrialSpec.parse(row["cell"]) for row in printed_rows() if row["cell"])
    counts = Counter(spec.architecture.name for spec in specs)
    return tuple(name for name, _ in counts.most_common() if name in ARCHITECTURES)


def printed_parameters(attack: str) -> frozenset[str]:
    """The parameters by which papers tell versions of an attack apart; its budget is always one."""
    return _parameters().get(attack, frozenset()) | {"budget"}


@cache
def _parameters() -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for row in printed_rows():
        if row["cell"]:
            attack = TrialSpec.parse(row["cell"]).attack
            found[attack.name] = found.get(attack.name, frozenset()) | dict(attack.params).keys()
    return found


def _join(figures: list[PublishedValue], new: PublishedValue) -> None:
    """Add a number, or its table to the same number of the same paper."""
    for position, old in enumerate(figures):
        if (old.paper, old.value, old.suspect) == (new.paper, new.value, new.suspect):
            std = old.std if old.std is not None else new.std
            tables = tuple(dict.fromkeys(old.tables + new.tables))
            figures[position] = replace(old, tables=tables, std=std)
            return
    figures.append(new)
