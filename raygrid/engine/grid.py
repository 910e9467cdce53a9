"""Grids: axes to trials, skips with reasons, distinct artifacts, and what it will cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from itertools import product
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from raygrid.attacks import ATTACKS
from raygrid.core.errors import SpecError, SpecErrors
from raygrid.core.registry import require
from raygrid.core.spec import (
    Part,
    TrialSpec,
    parse_chain,
    parse_ratio,
    parse_seed,
    split_outside,
)
from raygrid.trials.artifacts import Artifact
from raygrid.trials.catalog import Catalog
from raygrid.trials.resolve import resolve, resolve_all
from raygrid.trials.trial import Trial

Axis = Sequence[str]


@dataclass(frozen=True)
class Grid:
    """The product of axes. Every axis is a sequence of spec fragments.

    budgets: `default`, `16/255`, `l2:1.3`, `2x`; an absolute budget joins only with attacks of its
    norm, and one that joins with none is a fault. Attacks that already name a budget keep it;
    `clean` and `withheld` have none.
    """

    datasets: Axis = ("photo_digits",)
    attacks: Axis = ("clean",)
    budgets: Axis = ("default",)
    poison_ratios: Sequence[float | str] = (1.0,)
    defenses: Axis = ("standard",)
    architectures: Axis = ("small_cnn",)
    learners: Axis = ("supervised",)
    protocols: Axis = ("quick",)
    seeds: Sequence[int | str] = (0,)

    def __post_init__(self) -> None:
        """A text alone is one value, not its letters; raises SpecError for what is no axis."""
        for axis in fields(self):
            object.__setattr__(self, axis.name, _axis(axis.name, getattr(self, axis.name)))

    def specs(self) -> Iterator[TrialSpec]:
        """All points; raises SpecErrors with the faults of all fragments and of their methods."""
        faults: dict[str, None] = {}
        axes = [list(self._read(axis, faults)) for axis in self._axes()]
        order = ("dataset", "attack", "poison_ratio", "defense", "architecture", "learner")
        names = (*order, "protocol", "seed")
        faults |= dict.fromkeys(self._idle_budgets())
        points = (TrialSpec(**dict(zip(names, each, strict=True))) for each in product(*axes))
        if faults:
            # Some fragments could not be read. What can be made of the others is resolved for
            # its faults alone, so that one message has all of them.
            raise SpecErrors([*faults, *resolve_all(list(points), None)[1]])
        yield from points

    def unmatched(self) -> list[Skip]:
        """The attacks that give no trial at a budget of the shared axis, each with the reason."""
        pairs = product(self.attacks, self.budgets)
        found = (Skip(attack, _mismatch(attack, budget)) for attack, budget in pairs)
        return list(dict.fromkeys(skip for skip in found if skip.reason))

    def with_taken_budgets(self) -> Grid | None:
        """The grid with those budgets alone that one of its attacks takes; None without any."""
        taken = tuple(budget for budget in self.budgets if not self._idle(budget))
        return replace(self, budgets=taken) if taken else None

    def _idle_budgets(self) -> Iterator[str]:
        """What is wrong with the budgets that no attack of the grid takes."""
        yield from filter(None, map(self._idle, self.budgets))

    def _idle(self, budget: str) -> str:
        """Why no attack of the grid takes a budget; empty if one does."""
        why = [_mismatch(attack, budget) or _own(attack) for attack in self.attacks]
        if budget == "default" or not all(why):
            return ""
        reasons = "; ".join(dict.fromkeys(filter(None, why)))
        return f"no attack takes the budget {budget}: {reasons}"

    def _axes(self) -> Iterator[list[Callable[[], Any]]]:
        """What reads each fragment, axis by axis."""
        attacks = product(self.attacks, self.budgets)
        yield [partial(Part.parse, text) for text in self.datasets]
        yield [partial(_attack, *pair) for pair in attacks]
        yield [partial(parse_ratio, str(ratio)) for ratio in self.poison_ratios]
        yield [partial(parse_chain, text) for text in self.defenses]
        for texts in (self.architectures, self.learners, self.protocols):
            yield [partial(Part.parse, text) for text in texts]
        yield [partial(parse_seed, str(seed)) for seed in self.seeds]

    @staticmethod
    def _read(axis: list[Callable[[], Any]], faults: dict[str, None]) -> Iterator[Any]:
        """The fragments that can be read, each once; what is wrong with the others."""
        seen = set()
        for read in axis:
            try:
                value = read()
            except SpecError as error:
                faults[str(error)] = None
                continue
            if value is not None and value not in seen:
                seen.add(value)
                yield value


_NUMBERS: Mapping[str, tuple[type, str]] = {
    "seeds": (Integral, "whole numbers and texts"),
    "poison_ratios": (Real, "numbers and texts"),
}
"""The axes that take numbers, of which kind, and what they take in words."""


def _axis(name: str, value: Any) -> tuple[Any, ...]:
    """The values of an axis; raises SpecError for anything but texts, or numbers where they are."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        require(isinstance(value, str), f"{name} is {value!r}, allowed is a list of its values")
        return (value,)
    every = tuple(value)
    number, words = _NUMBERS.get(name, (None, "texts"))
    for each in every:
        fits = isinstance(each, str) or (number is not None and isinstance(each, number))
        require(fits, f"{name} has the value {each!r}, allowed are {words}")
    require(
        bool(every), f"{name} is empty, so that no trial is left; allowed are {words}, 1 or more"
    )
    return every


def _attack(text: str, budget: str) -> Part | None:
    """An attack with a budget of the shared axis, None if that is not meant for it."""
    part = Part.parse(text)
    if budget == "default" or "budget" in dict(part.params) or not _perturbs(part):
        return part
    return part.with_params(budget=budget) if _joins(part, budget) else None


def _mismatch(text: str, budget: str) -> str:
    """Why an attack gives no trial at a budget of the shared axis; empty if it does."""
    try:
        if _attack(text, budget) is not None:
            return ""
    except SpecError:  # told by whoever reads the axes
        return ""
    norms = " and ".join(ATTACKS[Part.parse(text).name].norms)
    return f"{text} takes {norms}, not {budget}"


def _own(text: str) -> str:
    """Why an attack leaves the shared axis aside; empty if it does not."""
    try:
        part = Part.parse(text)
    except SpecError:
        return ""
    if not _perturbs(part):
        return f"{text} has none"
    return f"{text} has its own" if "budget" in dict(part.params) else ""


def _perturbs(part: Part) -> bool:
    """Whether an attack has a budget (unknown names fail later)."""
    return part.name not in ATTACKS or "budget" in ATTACKS[part.name].__dataclass_fields__


def _joins(part: Part, budget: str) -> bool:
    """Whether a budget of a shared axis is meant for this attack (unknown names fail later)."""
    if budget.endswith("x") or part.name not in ATTACKS:
        return True
    norm, colon, _ = budget.partition(":")
    return (norm if colon else "linf") in ATTACKS[part.name].norms


@dataclass(frozen=True)
class Skip:
    """A cell of the grid that cannot be run, or an attack at one of its budgets, and why."""

    spec: str
    reason: str


@dataclass
class Plan:
    """What a grid comes to: trials to train, rows to derive, skips, artifacts in making order."""

    trials: list[Trial] = field(default_factory=list)
    derived: list[Trial] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)

    @property
    def artifacts(self) -> list[Artifact]:
        """Every distinct artifact once, needs before users."""
        found: dict[str, Artifact] = {}
        for trial in self.trials:
            for artifact in trial.artifacts:
                _collect(artifact, found)
        return list(found.values())


def _collect(artifact: Artifact, found: dict[str, Artifact]) -> None:
    if artifact.key in found:
        return
    for need in artifact.needs():
        _collect(need, found)
    found[artifact.key] = artifact


def plan(specs: Iterable[TrialSpec | str], catalog: Catalog | None, strict: bool = False) -> Plan:
    """Resolve specs into a plan; raises one SpecError that lists all faults.

    strict: a combination that cannot run is a fault as well (for specs that a person typed).
    """
    parsed, faults = _parse(specs)
    trials, more = resolve_all(parsed, catalog)
    faults += more
    out = Plan()
    seen: set[str] = set()
    for trial in trials:
        _file(trial, out, seen, catalog)
    if strict:
        faults += [f"{skip.spec}: {skip.reason}" for skip in out.skips]
    if faults:
        raise SpecError(_list(faults))
    return out


def _file(trial: Trial, out: Plan, seen: set[str], catalog: Catalog | None) -> None:
    identity = str(trial.spec)
    if identity in seen:
        return
    seen.add(identity)
    reason = trial.skip()
    if reason is not None:
        out.skips.append(Skip(identity, reason))
        return
    if not trial.bases:
        out.trials.append(trial)
        return
    # A derived row costs nothing itself but needs its trials, whether or not the grid names them;
    # if one of these cannot run, neither can the row.
    bases = [resolve(base, catalog) for base in trial.bases]
    reason = next(filter(None, (base.skip() for base in bases)), None)
    if reason is not None:
        out.skips.append(Skip(identity, reason))
        return
    out.derived.append(trial)
    for base in bases:
        _file(base, out, seen, catalog)


def _parse(specs: Iterable[TrialSpec | str]) -> tuple[list[TrialSpec], list[str]]:
    parsed, faults = [], []
    for spec in specs:
        try:
            parsed.append(TrialSpec.parse(spec) if isinstance(spec, str) else spec)
        except SpecError as error:
            faults.append(str(error))
    return parsed, faults


def _list(faults: list[str]) -> str:
    faults = list(dict.fromkeys(faults))
    if len(faults) == 1:
        return faults[0]
    lines = "\n".join(f"  - {fault}" for fault in faults)
    return f"{len(faults)} faults, nothing was started:\n{lines}"


def read_specs(path: Path) -> list[str]:
    """Spec strings from a text file, one a line; blank lines and `#` comments are left out.

    Raises SpecError for a file that cannot be read and for one without specs.
    """
    try:
        texts = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        why = "it is no text in UTF-8" if isinstance(error, ValueError) else error.strerror
        raise SpecError(f"@{path} cannot be read: {why}; expected a file of specs") from None
    lines = (next(split_outside(line, "#")).strip() for line in texts)
    found = [line for line in lines if line]
    require(bool(found), f"@{path} holds no spec")
    return found
