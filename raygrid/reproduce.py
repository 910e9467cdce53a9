"""Printed tables as lists of trials, at the paper's scale or at a smaller one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args

from raygrid.architectures import ARCHITECTURES
from raygrid.attacks import ATTACKS
from raygrid.datasets import DATASETS
from raygrid.defenses import DEFENSES
from raygrid.errors import SpecError, unknown
from raygrid.learners import LEARNERS
from raygrid.protocols import PROTOCOLS
from raygrid.published import specs_of
from raygrid.registry import Registry
from raygrid.spec import Part, TrialSpec

Scale = Literal["quick", "small", "paper"]
SMALL_EPOCHS = 30


@dataclass(frozen=True)
class Job:
    """The trials of a printed table at some scale, and what of it cannot be run here."""

    specs: tuple[str, ...]
    missing: tuple[str, ...]


def job(
    paper: str,
    number: str,
    scale: Scale = "paper",
    dataset: str | None = None,
    seeds: Sequence[int] = (0,),
) -> Job:
    """The trials behind table `number` of `paper`; raises SpecError for unknown names.

    scale: `paper` as printed; `small` with the paper's data and networks for 30 epochs; `quick`
        on the embedded digits with a small network, minutes on a CPU.
    dataset: only this one of the table's. What is not installed here is listed as missing.
    """
    if scale not in get_args(Scale):
        raise SpecError(unknown("scale", scale, get_args(Scale)))
    printed = [TrialSpec.parse(text) for text in specs_of(paper, number, dataset)]
    return job_of(printed, scale, seeds)


def job_of(printed: Sequence[TrialSpec], scale: Scale, seeds: Sequence[int]) -> Job:
    """The same for trials that somebody else listed."""
    parsed = [scaled(spec, scale) for spec in printed]
    specs: dict[str, None] = {}
    missing: dict[str, None] = {}
    for spec in parsed:
        lacking = absent(spec)
        missing.update(dict.fromkeys(lacking))
        if not lacking:
            specs.update((str(spec.replace(seed=seed)), None) for seed in seeds)
    return Job(tuple(specs), tuple(missing))


def scaled(spec: TrialSpec, scale: Scale) -> TrialSpec:
    """The same question at a smaller size."""
    if scale == "quick":
        return _quick(spec)
    if scale == "small":
        return spec.replace(protocol=spec.protocol.with_params(epochs=SMALL_EPOCHS))
    return spec


def _quick(spec: TrialSpec) -> TrialSpec:
    """The same question to a small network about the embedded digits."""
    attack, protocol = spec.attack, Part("quick")
    if spec.protocol.name in PROTOCOLS:
        theirs = PROTOCOLS[spec.protocol.name]
        protocol = Part.of(theirs.quick, **theirs.quick_params(dict(spec.protocol.params)))
    if attack.name in ATTACKS:
        attack = attack.with_params(**ATTACKS[attack.name].quick)
    pretrained = spec.learner.name in LEARNERS and LEARNERS[spec.learner.name].pretrained
    return spec.replace(
        dataset=Part("photo_digits_last" if pretrained else "photo_digits"),
        attack=attack,
        architecture=Part("small_cnn"),
        protocol=protocol,
    )


def absent(spec: TrialSpec) -> list[str]:
    """What of a spec cannot be made here: `kind name`, or what is wrong with its parameters."""
    named: list[tuple[Registry[Any], Part]] = [
        (DATASETS, spec.dataset),
        (ATTACKS, spec.attack),
        *((DEFENSES, part) for part in spec.defense),
        (ARCHITECTURES, spec.architecture),
        (LEARNERS, spec.learner),
        (PROTOCOLS, spec.protocol),
    ]
    return [reason for registry, part in named if (reason := _fault(registry, part))]


@cache
def _fault(registry: Registry[Any], part: Part) -> str | None:
    if part.name not in registry:
        return f"{registry.kind} {part.name}"
    try:
        registry.make(part)
    except SpecError as error:
        return f"{registry.kind} {error}"
    return None
