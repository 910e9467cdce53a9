"""From contradictions to trials: what a setting comes to at each scale."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import NamedTuple

from settings import Contradiction, Setting

from raygrid.attacks import ATTACKS
from raygrid.core.budget import Budget
from raygrid.core.literals import Scalar
from raygrid.core.spec import Part, TrialSpec, parse_chain
from raygrid.defenses import DEFENSES
from raygrid.reproduce.scales import COMPARISON_SIZES
from raygrid.reproduce.screening import (
    not_screened,
    screened_attack,
    screened_defense,
    screened_network,
)
from raygrid.trials.resolve import resolve

STRONGER = {"lsp": 2.67, "ar": 3.0}  # times the budget at `quick`; the others 2, but not pixels


class Case(NamedTuple):
    """What a contradiction is looked at on."""

    attack: str
    defense: str
    learner: str


def cases(claim: Contradiction) -> list[Case]:
    """All cases, those of one attack and learner together, their first defense first."""
    defenses = claim.defenses[1:] if claim.defended else claim.defenses
    every = product(claim.attacks, claim.learners, defenses)
    return [Case(attack, defense, learner) for attack, learner, defense in every]


def changed(part: Part, change: str | Mapping[str, Scalar]) -> Part:
    """Another method, or the same one with parameters."""
    return Part.parse(change) if isinstance(change, str) else part.with_params(**change)


def attack_part(name: str, setting: Setting, scale: str) -> Part:
    """The attack of a setting at the parameters and budget of a scale."""
    if name == "clean":
        return Part(name)
    part = changed(Part(name), setting.change.get("attack", {}))
    if COMPARISON_SIZES[scale].screened:
        return _screened(part, setting)
    if not COMPARISON_SIZES[scale].small:
        return part
    if setting.small is None:
        part = Part.of(part.name, **{**ATTACKS[part.name].quick, **dict(part.params)})
    else:
        part = part.with_params(**setting.small)
    return part.with_params(**stronger(part)) if COMPARISON_SIZES[scale].stronger else part


def _screened(part: Part, setting: Setting) -> Part:
    """An attack with the fast network, or with the small one of the family that a setting names.

    Noise that needs none is as at the scales for a CPU, whose images have 32 pixels too.
    """
    made = screened_attack(part)
    if made == part:
        return part.with_params(**(setting.small or {}))
    named = dict(part.params).get("surrogate")
    networks = {"surrogate": screened_network(str(named))} if named else {}
    return made.with_params(**{**networks, **setting.screen})


def chain(claim: Contradiction, setting: Setting, defense: str, scale: str) -> tuple[Part, ...]:
    """The defense of a case as a setting has it, at the parameters of a scale."""
    change = {} if defense == claim.defenses[0] else setting.change.get("defense", {})
    if isinstance(change, str):
        links = parse_chain(change)
    else:
        links = (Part(defense).with_params(**change),)
    if COMPARISON_SIZES[scale].screened:
        return tuple(map(screened_defense, links))
    if not COMPARISON_SIZES[scale].small:
        return links

    def cut(part: Part) -> Part:
        quick = {**DEFENSES[part.name].quick, **claim.shortened.get(part.name, {})}
        return Part.of(part.name, **{**quick, **dict(part.params)})

    return tuple(map(cut, links))


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
    size = COMPARISON_SIZES[scale]
    change = setting.change
    where = TrialSpec(
        dataset=Part(size.dataset if size.small or size.screened else claim.dataset),
        attack=attack_part(case.attack, setting, scale),
        defense=chain(claim, setting, case.defense, scale),
        architecture=Part(size.architecture),
        learner=changed(Part(case.learner), change.get("learner", {})),
        protocol=changed(
            Part.parse(size.sgd if claim.sgd else size.protocol), change.get("protocol", {})
        ),
        seed=seed,
    )
    return str(resolve(where, None).spec)


def specs(claim: Contradiction, scale: str, seeds: Sequence[int]) -> Iterator[str]:
    """Every trial of a contradiction, and the clean ones that its attacks are held against."""
    for seed, case, setting in product(seeds, cases(claim), claim.settings):
        met = [undefended(claim, case), case] if claim.defended else [case]
        for where in met:
            yield trial(claim, setting, where._replace(attack="clean"), scale, seed)
            yield trial(claim, setting, where, scale, seed)


def lacking(claim: Contradiction, scale: str) -> list[str]:
    """Why a question is not asked at a scale; empty where it is."""
    if not COMPARISON_SIZES[scale].screened:
        return []
    every = product(cases(claim), claim.settings)
    made = (trial(claim, setting, case, scale, 0) for case, setting in every)
    return list(dict.fromkeys(why for spec in made for why in not_screened(TrialSpec.parse(spec))))


def undefended(claim: Contradiction, case: Case) -> Case:
    """The same case under the first defense, which shows whether the attack works."""
    return case._replace(defense=claim.defenses[0])
