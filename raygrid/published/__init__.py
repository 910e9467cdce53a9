"""What the papers printed: every number, the spec of the trial that it belongs to, and lookup.

The files of `raygrid/published/data/` are kept as they are; `names` turns their ids into raygrid's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any

import pandas as pd

from raygrid.architectures import ARCHITECTURES
from raygrid.attacks import ATTACKS
from raygrid.core.errors import SpecError, unknown
from raygrid.core.registry import Registry
from raygrid.core.spec import Part, TrialSpec
from raygrid.datasets import DATASETS
from raygrid.defenses import DEFENSES
from raygrid.published import toxic
from raygrid.published.names import (
    MADE,
    MADE_ON,
    MEASURES,
    PAPERS,
    PROTOCOL,
    SIX,
    made_by,
    map_row,
    on_any_dataset,
    split_budget,
)
from raygrid.published.questions import QUESTIONS, PrintedQuestion, questions_of

__all__ = [
    "MEASURES",
    "PAPERS",
    "PROTOCOL",
    "QUESTIONS",
    "SIX",
    "Finding",
    "PrintedQuestion",
    "PublishedValue",
    "asked",
    "canonical",
    "find",
    "load",
    "on_any_dataset",
    "specs_of",
    "tables_of",
]

CONTRADICTION = 0.05  # papers contradict each other from this difference on, as a fraction


@dataclass(frozen=True)
class PublishedValue:
    """One published number of a paper, with every table that prints it. Fractions.

    made: attack, defense, architecture and dataset as that paper ran them; protocol: of its trials.
    """

    paper: str
    made: tuple[str, str, str, str]
    protocol: str
    tables: tuple[str, ...]
    value: float
    std: float | None
    suspect: bool
    note: str

    def cite(self) -> str:
        """Paper and tables, as in `apbench T3, T16`."""
        return f"{self.paper} {', '.join('T' + t if t[0].isdigit() else t for t in self.tables)}"


@dataclass(frozen=True)
class Finding:
    """What is published for one cell.

    apart: what sets `best` apart from what was asked for: the paper if its protocol is another
        one, else those of its methods that go by the same name only, else nothing.
    """

    best: PublishedValue
    apart: str
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


@cache
def load() -> pd.DataFrame:
    """All rows as printed (text), with these columns added.

    cell: its spec under the names that papers share, also where it is derived (`worst`, `iss`);
        None where it is no cell of a grid. made: the same with what the paper really ran.
    spec: `made` where that is a trial; reason: why there is no spec, else None.
    measure: what of the trial's row it is; accuracy, accuracy_std: fractions; suspect: bool.
    """
    folder = resources.files("raygrid.published") / "data"
    parts = []
    for paper in PAPERS:
        with resources.as_file(folder / f"{paper}.csv") as path:
            parts.append(pd.read_csv(path, dtype=str, keep_default_na=False))
    rows = pd.concat(parts, ignore_index=True)
    mapped = [map_row({str(k): v for k, v in row.items()}) for row in rows.to_dict("records")]
    rows["cell"] = [None if axes is None else str(axes) for axes, _ in mapped]
    made = zip(rows["paper"], mapped, strict=True)
    rows["made"] = [
        None if axes is None else str(made_by(paper, axes)) for paper, (axes, _) in made
    ]
    rows["reason"] = [reason for _, reason in mapped]
    rows["spec"] = rows["made"].where(rows["reason"].isna(), None)
    rows["measure"] = rows["metric"].map(MEASURES)
    percent = rows["unit"] == "percent"
    for new, old in (("accuracy", "value"), ("accuracy_std", "std")):
        rows[new] = (pd.to_numeric(rows[old]) / 100).round(6).where(percent)
    rows["suspect"] = rows["note"].str.contains("suspect:", regex=False)
    return rows


def find(spec: TrialSpec | str, measure: str = "final_acc") -> Finding | None:
    """The published numbers of a cell, best one first; None if no paper has it.

    `seed` does not matter. The protocol does: the number of the paper whose protocol it is comes
    first, else the first paper that has one; numbers marked as suspect come last.
    """
    spec = TrialSpec.parse(spec) if isinstance(spec, str) else spec
    figures = _index().get((cell_key(spec), measure))
    if not figures:
        return None
    protocol, methods = _protocol(spec), _methods(spec)

    def distance(figure: PublishedValue) -> tuple[bool, bool, bool]:
        return (
            figure.suspect,
            figure.protocol != protocol,
            figure.made != methods,
        )

    best, *others = sorted(figures, key=distance)
    unlike = [theirs for theirs, ours in zip(best.made, methods, strict=True) if theirs != ours]
    apart = best.paper if best.protocol != protocol else ", ".join(unlike)
    return Finding(best, apart, tuple(others))


@cache
def _index() -> dict[tuple[str, str], list[PublishedValue]]:
    rows = load()
    index: dict[tuple[str, str], list[PublishedValue]] = {}
    for row in rows[rows["cell"].notna()].to_dict("records"):
        key = (cell_key(TrialSpec.parse(row["cell"])), row["measure"])
        new = PublishedValue(
            paper=row["paper"],
            made=_methods(TrialSpec.parse(row["made"])),
            protocol=_protocol(TrialSpec.parse(row["made"])),
            tables=(row["table"],),
            value=row["accuracy"],
            std=None if pd.isna(row["accuracy_std"]) else float(row["accuracy_std"]),
            suspect=row["suspect"],
            note=row["note"],
        )
        _join(index.setdefault(key, []), new)
    return index


def _join(figures: list[PublishedValue], new: PublishedValue) -> None:
    """Add a number, or its table to the same number of the same paper."""
    for position, old in enumerate(figures):
        if (old.paper, old.value, old.suspect) == (new.paper, new.value, new.suspect):
            std = old.std if old.std is not None else new.std
            tables = tuple(dict.fromkeys(old.tables + new.tables))
            figures[position] = replace(old, tables=tables, std=std)
            return
    figures.append(new)


def cell_key(spec: TrialSpec) -> str:
    """A spec without protocol and seed, all its parts under the names that papers share."""
    on = spec.dataset.name
    attack = "clean" if spec.poison_ratio == 0 else _shared(ATTACKS, spec.attack, on)
    ratio = 1.0 if attack == "clean" else spec.poison_ratio
    chain = "+".join(_shared(DEFENSES, part, on) for part in spec.defense)
    architecture = _shared(ARCHITECTURES, spec.architecture, on)
    dataset = _shared(DATASETS, spec.dataset, on)
    return f"{dataset}/{attack}@{ratio}/{chain}/{architecture}/{spec.learner}"


def _protocol(spec: TrialSpec) -> str:
    """The protocol, wherever its set-ups lie."""
    params = {key: value for key, value in spec.protocol.params if key != "setups"}
    return str(Part.of(spec.protocol.name, **params))


def _methods(spec: TrialSpec) -> tuple[str, str, str, str]:
    """Attack, defense, architecture and dataset of a spec, each as short as it can be said."""
    chain = "+".join(canonical(DEFENSES, part) for part in spec.defense)
    attack, dataset = canonical(ATTACKS, spec.attack), canonical(DATASETS, spec.dataset)
    return attack, chain, canonical(ARCHITECTURES, spec.architecture), dataset


@cache
def _shared(registry: Registry[Any], part: Part, dataset: str) -> str:
    """The name that papers share for what one of them ran on a dataset (`em` for `em_apb`)."""
    whole = Part.parse(canonical(registry, part))
    method, budget = split_budget(whole)
    alone = [(name, made) for (_, on, name), made in MADE_ON.items() if on == dataset]
    for name, made in (*alone, *((name, made) for (_, name), made in MADE.items())):
        text = canonical(registry, Part.parse(made))
        if text in (str(whole), str(method)):
            budget = {} if text == str(whole) else budget
            method = Part.parse(canonical(registry, Part.parse(name)))
            break
    params = dict(method.params)
    if "base" in params:  # an attack made of another
        base = _shared(registry, Part.parse(str(params["base"])), dataset)
        method = Part.parse(canonical(registry, method.with_params(base=base)))
    return str(method.with_params(**budget))


@cache
def canonical(registry: Registry[Any], part: Part) -> str:
    """The shortest text of a method, without the place of its weights.

    That of a method which is not there, or cannot be made so, stays as it is.
    """
    with suppress(SpecError):
        part = registry.make(part).part()
    params = {key: value for key, value in part.params if key != "checkpoint"}
    return str(Part.of(part.name, **params))


def specs_of(paper: str, table: str) -> list[str]:
    """The trials of a printed table, in its order, each once; raises SpecError for unknown names.

    Cells over several trials that no defense derives come out as these: `worst` as the six
    learners. Numbers that are asked of trials (`asked`) come out as these too.
    """
    made = _rows_of(paper, table)["made"].dropna()
    found = dict.fromkeys(spec for cell in made for spec in _trials(cell))
    for each in asked(paper, table):
        found.update((str(spec), None) for spec in each.about)
    return list(found)


def asked(paper: str, table: str) -> list[PrintedQuestion]:
    """The numbers of a printed table that no row of a trial holds; as `specs_of`."""
    rows = _rows_of(paper, table).astype(str)
    return list(
        questions_of([{str(k): v for k, v in row.items()} for row in rows.to_dict("records")])
    )


def _rows_of(paper: str, table: str) -> pd.DataFrame:
    if paper not in PAPERS:
        raise SpecError(unknown("paper", paper, PAPERS))
    if table not in tables_of(paper):
        raise SpecError(unknown(f"table with trials of {paper}", table, tables_of(paper)))
    rows = load()
    return rows[(rows["paper"] == paper) & (rows["table"] == table)]


def _trials(cell: str) -> Iterator[str]:
    spec = TrialSpec.parse(cell)
    if spec.architecture.name == toxic.MEAN:
        yield from (str(spec.replace(architecture=a)) for a in toxic.members(spec.architecture))
    elif spec.learner.name == "worst":
        yield from (str(spec.replace(learner=Part(name))) for name in SIX)
    else:
        yield cell


def tables_of(paper: str) -> list[str]:
    """The tables of a paper with a trial, or a question to one, in the order of the file."""
    rows = load()
    answered = [metric for each in QUESTIONS.values() for metric in each.metrics]
    known = rows["cell"].notna() | rows["metric"].isin(answered)
    return list(rows[(rows["paper"] == paper) & known]["table"].unique())
