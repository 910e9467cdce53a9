"""From contradictions to trials: what a setting comes to at each scale."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import NamedTuple

from settings import Contradiction, Setting

from raygrid.attacks import ATTACKS
from raygrid.core.budget import Budget
from raygrid.core.spec import Part, Scalar, TrialSpec
from raygrid.reproduce.scales import SIZES
from raygrid.trials.resolve import resolve

STRONGER = {"lsp": 2.67, "ar": 3.0}  # times the budget at `quick`; the others 2, but not pixels


class Case(NamedTuple):
    """What a contradiction is looked at on."""

    attack: str
    defense: str
    learner: str


def cases(claim: Contradiction) -> list[Case]:
    """All cases, those of one attack and learner together, their first defense first."""
    every = product(claim.attacks, claim.learners, claim.defenses)
    return [Case(attack, defense, learner) for attack, learner, defense in every]


def changed(part: Part, change: str | Mapping[str, Scalar]) -> Part:
    """Another method, or the same one with parameters."""
    return Part.parse(change) if isinstance(change, str) else part.with_params(**change)


def attack_part(name: str, setting: Setting, scale: str) -> Part:
    """The attack of a setting at the parameters and budget of a scale."""
    if name == "clean":
        return Part(name)
    part = changed(Part(name), setting.change.get("attack", {}))
    if not SIZES[scale].small:
        return part
    if setting.small is None:
        part = Part.of(part.name, **{**ATTACKS[part.name].quick, **dict(part.params)})
    else:
        part = part.with_params(**setting.small)
    return part.with_params(**stronger(part)) if SIZES[scale].stronger else part


def stronger(part: Part) -> dict[str, Scalar]:
    """A higher budget for an attack; nothing for those that are counted in pixels, nor for a
    ceiling that is the whole range already."""
    usual: Budget = ATTACKS[part.name].__dataclass_fields__["budget"].default  # type: ignore[assignment]
    budget = Budget.parse(str(dict(part.params).get("budget", "1x")), usual)
    if budget.norm == "l0":
        return {}
    value = budget.value * STRONGER.get(part.name, 2.0)
    if budget.norm == "linf" and budget.value == 1:
        return {}
    return {"budget": str(Budget(budget.norm, value if budget.norm == "linf" else round(value, 2)))}


def trial(claim: Contradiction, setting: Setting, case: Case, scale: str, seed: int) -> str:
    """The canonical spec of one trial."""
    size = SIZES[scale]
    change = setting.change
    where = TrialSpec(
        dataset=Part(size.dataset if size.small else claim.dataset),
        attack=attack_part(case.attack, setting, scale),
        defense=(Part(case.defense),),
        architecture=Part(size.architecture),
        learner=changed(Part(case.learner), change.get("learner", {})),
        protocol=changed(
            Part.parse(size.sgd if claim.sgd else size.protocol), change.get("protocol", {})
        ),
        seed=seed,
    )
    return str(resolve(where, None).spec)


def specs(claim: Contradiction, scale: str, seeds: int) -> Iterator[str]:
    """Every trial of a contradiction, and the clean ones that its attacks are held against."""
    for seed, case, setting in product(range(seeds), cases(claim), claim.settings):
        yield trial(claim, setting, case._replace(attack="clean"), scale, seed)
        yield trial(claim, setting, case, scale, seed)
