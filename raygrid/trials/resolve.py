"""From a spec to a trial: everything decided, nothing run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from raygrid.architectures import ARCHITECTURES
from raygrid.architectures.base import Architecture
from raygrid.attacks import ATTACKS
from raygrid.attacks.base import Attack
from raygrid.core.budget import Budget
from raygrid.core.errors import DataError, SpecError, SpecErrors, unknown
from raygrid.core.spec import Part, TrialSpec
from raygrid.datasets import DATASETS
from raygrid.datasets.base import Dataset
from raygrid.defenses.chain import Chain
from raygrid.learners import LEARNERS
from raygrid.learners.base import Learner
from raygrid.nn import augment
from raygrid.nn.diffusion import BridgePlan, Prior
from raygrid.nn.recipes import Recipe
from raygrid.protocols import PROTOCOLS, Protocol
from raygrid.protocols.setups import SetupPlan
from raygrid.trials.artifacts import (
    BridgeArtifact,
    DatasetArtifact,
    DenoiserArtifact,
    GivenPretraining,
    Pretraining,
)
from raygrid.trials.catalog import Lookup
from raygrid.trials.trial import Trial


def resolve(spec: TrialSpec | str, catalog: Lookup | None) -> Trial:
    """Decide everything about a trial; raises SpecError or DataError that says what is wrong.

    Without a catalog no data are looked at: names, parameters and skips can be checked, but the
    keys are not those of a run.
    """
    spec = TrialSpec.parse(spec) if isinstance(spec, str) else spec
    made = _methods(spec)
    dataset, attack, defense, architecture, protocol, (learner, learner_part) = made
    data = DatasetArtifact(dataset, "unknown", protocol.validation)
    content = "unknown"
    if catalog is not None:
        data = catalog.artifact(dataset, protocol.validation)
        content = catalog.content(data)
        dataset = data.dataset  # with the sizes of the data at hand
    attack = _grown(attack, spec.attack, dataset.image_size)
    recipe = _recipe(protocol, learner, dataset, defense, architecture.id)
    try:
        learner.check(recipe)
    except SpecError as error:
        raise SpecError(f"{learner_part} with {protocol.part()}: {error}") from None
    rule = protocol.setup_rule(dataset.id, learner.pretrained)
    canonical = TrialSpec(
        dataset=dataset.part(),
        attack=attack.part(),
        defense=tuple(d.part() for d in defense.links),
        architecture=architecture.part(),
        learner=learner_part,
        protocol=protocol.part(),
        seed=spec.seed,
        poison_ratio=1.0 if attack.id == "clean" else spec.poison_ratio,
    )
    pretraining = None
    if learner.pretrained or attack.extractors:
        given = _given(protocol, data, architecture)
        pretraining = given or _pretraining(protocol, dataset, catalog)
    trial = Trial(
        canonical,
        dataset,
        attack,
        defense,
        architecture,
        learner,
        protocol,
        recipe,
        data,
        content,
        None if rule is None else SetupPlan(rule, spec.seed),
        pretraining,
    )
    if (named := trial.augmentation) not in augment.STANDARD_NAMES:
        raise SpecError(unknown(f"augmentation of {dataset.id}", named, augment.STANDARD_NAMES))
    priors = tuple(_prior(link.prior, trial, catalog) for link in defense.purifiers)
    return replace(trial, priors=priors)


def _grown(attack: Attack, given: Part, side: int) -> Attack:
    """The attack at images of that side: a multiple of a default that grows with them grows, too.

    Its budget is written out from here on, so that keys and tables name its size.
    """
    factor = Budget.times(dict(given.params).get("budget", ""))
    limit = attack.limit
    if factor in (None, 1.0) or limit is None or not attack.grows or side == 32:
        return attack
    value = limit.value * side / 32
    if attack.is_default(Budget(limit.norm, value)):  # half of it at 64: which would grow again
        value = math.nextafter(value, math.inf)
    return replace(attack, budget=Budget(limit.norm, value))  # type: ignore[call-arg]


def _prior(
    prior: Prior | BridgePlan | None, trial: Trial, catalog: Lookup | None
) -> DenoiserArtifact | BridgeArtifact | None:
    """The network that a defense starts from: of the trial's own data, of others, of its poison."""
    if prior is None:
        return None
    if isinstance(prior, BridgePlan):
        return BridgeArtifact(trial.poison, trial.spec.poison_ratio, prior, trial.seed)
    data, content = trial.data, trial.content
    if prior.data:
        data, content = _other(DATASETS.make(prior.data), catalog)
    return DenoiserArtifact(data, content, prior.plan, prior.part)


def _other(dataset: Dataset, catalog: Lookup | None) -> tuple[DatasetArtifact, str]:
    """The data of a network that is fitted to another dataset, and their content."""
    if catalog is None:
        return DatasetArtifact(dataset, "unknown"), "unknown"
    data = catalog.artifact(dataset, 0.0)
    return data, catalog.content(data)


def _given(
    protocol: Protocol, data: DatasetArtifact, architecture: Architecture
) -> Pretraining | None:
    """Extractors with the weights that the protocol is given, if it is."""
    if protocol.given is None:
        return None
    never = Recipe(epochs=1)  # there is nothing to train
    named = str(architecture.part())
    return GivenPretraining(data, "", never, weights=protocol.given, architecture=named)


def _pretraining(
    protocol: Protocol, dataset: Dataset, catalog: Lookup | None
) -> Pretraining | None:
    """Where extractors come from, if the protocol pre-trains any."""
    name = protocol.pretraining_data
    origin = DATASETS.make(dataset.pretraining or dataset.id if name == "auto" else name)
    recipe = protocol.pretraining(origin.id)
    if recipe is None:
        return None
    augmentation = protocol.augmentations.get(origin.id, origin.augmentation)
    return Pretraining(*_other(origin, catalog), recipe, augmentation)


Methods = tuple[Dataset, Attack, Chain, Architecture, Protocol, tuple[Learner, Part]]


def _methods(spec: TrialSpec) -> Methods:
    """All methods of a spec; raises SpecErrors with the faults of all parts."""
    attack = Part("clean") if spec.poison_ratio == 0 else spec.attack
    makers: tuple[Callable[[], Any], ...] = (
        lambda: DATASETS.make(spec.dataset),
        lambda: ATTACKS.make(attack),
        lambda: Chain.make(spec.defense),
        lambda: ARCHITECTURES.make(spec.architecture),
        lambda: PROTOCOLS.make(spec.protocol),
        lambda: _learner(spec),
    )
    made, faults = [], dict[str, None]()
    for make in makers:
        try:
            made.append(make())
        except SpecError as error:
            faults[str(error)] = None
    if faults:
        raise SpecErrors(faults)
    return tuple(made)


def _learner(spec: TrialSpec) -> tuple[Learner, Part]:
    """The learner with the protocol's settings where the spec has none, and its shortest part."""
    part = spec.learner
    settings = Part.of(part.name, **PROTOCOLS.make(spec.protocol).settings.get(part.name, {}))
    learner = LEARNERS.make(settings.with_params(**dict(part.params)))
    return learner, learner.part(base=LEARNERS.make(settings))


def _recipe(
    protocol: Protocol, learner: Learner, dataset: Dataset, defense: Chain, architecture: str
) -> Recipe:
    if not protocol.has(learner.id):
        if learner.recipe is None:
            return Recipe(epochs=1)  # never run: the trial is skipped with its reason
        return protocol.as_set(learner.recipe)
    names = tuple(d.id for d in defense.links)
    return protocol.recipe(learner.id, dataset.id, dataset.image_size, names, architecture)


def resolve_all(specs: list[TrialSpec], catalog: Lookup | None) -> tuple[list[Trial], list[str]]:
    """Resolve all specs and collect every fault once, instead of stopping at the first."""
    trials, faults = [], dict[str, None]()
    for spec in specs:
        try:
            trials.append(resolve(spec, catalog))
        except SpecErrors as error:
            faults |= dict.fromkeys(error.faults)
        except (SpecError, DataError) as error:
            faults[str(error)] = None
    return trials, list(faults)
