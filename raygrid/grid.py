"""Grids: axes to trials, skips with reasons, distinct artifacts, and what it will cost."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from raygrid.artifacts import Artifact
from raygrid.attacks import ATTACKS
from raygrid.catalog import Catalog
from raygrid.errors import SpecError
from raygrid.resolve import Trial, check, resolve
from raygrid.spec import Part, TrialSpec, parse_chain

Axis = Sequence[str]


@dataclass(frozen=True)
class Grid:
    """The product of axes. Every axis is a sequence of spec fragments.

    budgets: `default`, `16/255`, `l2:1.3`, `2x`; an absolute budget joins only with attacks of its
    norm. Attacks that already name a budget keep it; `clean` and `withheld`
    have none.
    """

    datasets: Axis = ("photo_digits",)
    attacks: Axis = ("clean",)
    budgets: Axis = ("default",)
    poison_ratios: Sequence[float] = (1.0,)
    defenses: Axis = ("standard",)
    architectures: Axis = ("small_cnn",)
    learners: Axis = ("supervised",)
    protocols: Axis = ("quick",)
    seeds: Sequence[int] = (0,)

    def specs(self) -> Iterator[TrialSpec]:
        """All points, the fault of any fragment raising SpecError."""
        axes = itertools.product(
            map(Part.parse, self.datasets),
            self._attacks(),
            self.poison_ratios,
            [parse_chain(text) for text in self.defenses],
            map(Part.parse, self.architectures),
            map(Part.parse, self.learners),
            map(Part.parse, self.protocols),
            self.seeds,
        )
        for dataset, attack, ratio, defense, architecture, learner, protocol, seed in axes:
            yield TrialSpec(dataset, attack, defense, architecture, learner, protocol, seed, ratio)

    def _attacks(self) -> list[Part]:
        found: dict[Part, None] = {}
        for text, budget in itertools.product(self.attacks, self.budgets):
            part = Part.parse(text)
            if budget == "default" or "budget" in dict(part.params) or not _perturbs(part):
                found[part] = None
            elif _joins(part, budget):
                found[part.with_params(budget=budget)] = None
        return list(found)


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
    """A cell of the grid that cannot be run, and why."""

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

    def by_key(self) -> dict[str, Trial]:
        return {trial.key: trial for trial in self.trials}


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
    trials, more = check(parsed, catalog)
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
    """Spec strings from a text file, one a line; blank lines and `#` comments are left out."""
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line]
