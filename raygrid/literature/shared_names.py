"""Specs under their shortest names, and under those that papers share: what is one cell for all.

A row of a paper and a trial of raygrid belong together where `cell_key` names them alike.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from raygrid.architectures import ARCHITECTURES
from raygrid.attacks import ATTACKS
from raygrid.core.errors import SpecError
from raygrid.core.registry import Registry, cached
from raygrid.core.spec import Part, TrialSpec
from raygrid.datasets import DATASETS
from raygrid.defenses import DEFENSES
from raygrid.literature.made import REAL_METHODS, REAL_METHODS_ON, places_of, split_budget


def cell_key(spec: TrialSpec) -> str:
    """A spec without protocol and seed, all its parts under the names that papers share."""
    on = places_of(spec)
    attack = "clean" if spec.poison_ratio == 0 else _shared(ATTACKS, spec.attack, on)
    ratio = 1.0 if attack == "clean" else spec.poison_ratio
    chain = "+".join(_shared(DEFENSES, part, on) for part in spec.defense)
    architecture = _shared(ARCHITECTURES, spec.architecture, on)
    dataset = _shared(DATASETS, spec.dataset, on)
    return f"{dataset}/{attack}@{ratio}/{chain}/{architecture}/{spec.learner}"


def protocol_of(spec: TrialSpec) -> str:
    """The protocol, wherever its set-ups lie."""
    params = {key: value for key, value in spec.protocol.params if key != "setups"}
    return str(Part.of(spec.protocol.name, **params))


def methods_of(spec: TrialSpec) -> tuple[str, str, str, str]:
    """Attack, defense, architecture and dataset of a spec, each as short as it can be said."""
    chain = "+".join(canonical(DEFENSES, part) for part in spec.defense)
    attack, dataset = canonical(ATTACKS, spec.attack), canonical(DATASETS, spec.dataset)
    return attack, chain, canonical(ARCHITECTURES, spec.architecture), dataset


@cached
def _shared(registry: Registry[Any], part: Part, places: tuple[str, str]) -> str:
    """The name that papers share for what one of them ran on a dataset (`em` for `em_apb`)."""
    whole = Part.parse(canonical(registry, part))
    method, budget = split_budget(whole)
    alone = [(name, made) for (_, on, name), made in REAL_METHODS_ON.items() if on in places]
    for name, made in (*alone, *((name, made) for (_, name), made in REAL_METHODS.items())):
        text = _canonical_text(registry, made)
        if text in (str(whole), str(method)):
            budget = {} if text == str(whole) else budget
            method = Part.parse(_canonical_text(registry, name))
            break
    params = dict(method.params)
    if "base" in params:  # an attack made of another
        base = _shared(registry, Part.parse(str(params["base"])), places)
        method = Part.parse(canonical(registry, method.with_params(base=base)))
    return str(method.with_params(**budget))


@cached
def _canonical_text(registry: Registry[Any], text: str) -> str:
    return canonical(registry, Part.parse(text))


@cached
def canonical(registry: Registry[Any], part: Part) -> str:
    """The shortest text of a method, without the place of its weights.

    That of a method which is not there, or cannot be made so, stays as it is.
    """
    with suppress(SpecError):
        part = registry.make(part).part()
    params = {key: value for key, value in part.params if key != "checkpoint"}
    return str(Part.of(part.name, **params))
