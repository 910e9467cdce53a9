"""From a spec to methods, recipe, key and artifacts: everything decided, nothing run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from raygrid.architectures import ARCHITECTURES
from raygrid.architectures.base import Architecture
from raygrid.artifacts import (
    Artifact,
    DatasetArtifact,
    PoisonArtifact,
    Pretraining,
    PurifiedArtifact,
    StudyArtifact,
    SurrogateArtifact,
)
from raygrid.attacks import ATTACKS
from raygrid.attacks.base import Attack
from raygrid.catalog import Lookup
from raygrid.datasets import DATASETS
from raygrid.datasets.base import Dataset
from raygrid.defenses.base import Chain
from raygrid.errors import DataError, SpecError, SpecErrors
from raygrid.features import FeaturesArtifact
from raygrid.learners import LEARNERS
from raygrid.learners.base import Learner
from raygrid.protocols import PROTOCOLS, Protocol
from raygrid.recipes import Probing, Recipe
from raygrid.registry import Cell
from raygrid.seeds import Stream
from raygrid.setups import SetupPlan
from raygrid.spec import Part, TrialSpec
from raygrid.store import key_of

VERSION = 1
"""Of the training loop and the streams: raise it when results of unchanged methods change."""


@dataclass(frozen=True)
class Trial:
    """One fully decided trial. `spec` is in canonical form: only non-defaults are printed.

    setup: the target that it is asked about; pretraining: where its extractors come from. None
    where the protocol has no such thing.
    """

    spec: TrialSpec
    dataset: Dataset
    attack: Attack
    defense: Chain
    architecture: Architecture
    learner: Learner
    protocol: Protocol
    recipe: Recipe
    data: DatasetArtifact
    content: str
    setup: SetupPlan | None = None
    pretraining: Pretraining | None = None

    @property
    def seed(self) -> int:
        return self.spec.seed

    @cached_property
    def key(self) -> str:
        """The content key of the result."""
        return key_of(self.resolved())

    def resolved(self) -> dict[str, Any]:
        """All that decides the result, as JSON values."""
        more: dict[str, Any] = {}
        if self.setup is not None:
            more["setup"] = self.setup.resolved()
        if self.pretraining is not None:
            more["pretraining"] = self.pretraining.resolved()
        return {
            "version": VERSION,
            "content": self.content,
            "dataset": self.dataset.resolved(),
            "attack": self.attack.resolved(),
            "surrogates": [s.resolved() for s in self.attack.needs()],
            "poison_ratio": self.spec.poison_ratio,
            "defense": self.defense.resolved(),
            "architecture": self.architecture.resolved(),
            "learner": self.learner.resolved(),
            "protocol": self.protocol.resolved(),
            "recipe": dataclasses.asdict(self.recipe),
            "probing": dataclasses.asdict(self.probing) if self.learner.views else None,
            "seed": self.seed,
            **more,
        }

    @property
    def probing(self) -> Probing:
        """How the protocol fits the linear probe of this learner."""
        return self.protocol.probing(self.learner.id)

    def cell(self) -> Cell:
        """The methods side by side, for their `skip`."""
        return Cell(
            dataset=self.dataset,
            attack=self.attack,
            defense=self.defense.links,
            architecture=self.architecture,
            learner=self.learner,
            protocol=self.protocol,
            image_size=self.dataset.image_size,
            classes=self.dataset.classes,
            poison_ratio=self.spec.poison_ratio,
            views=self.learner.views,
            targets=self.setup is not None,
        )

    def skip(self) -> str | None:
        """Why this combination cannot be run, or None."""
        if not self.protocol.has(self.learner.id):
            return f"protocol {self.protocol.id} has no recipe for the learner {self.learner.id}"
        if self.setup is not None and (reason := self.setup.rule.check(self.seed)):
            return reason
        cell = self.cell()
        methods = (
            self.dataset,
            self.attack,
            *self.defense.links,
            self.architecture,
            self.learner,
            self.protocol,
        )
        return next(filter(None, (method.skip(cell) for method in methods)), None)

    @property
    def bases(self) -> tuple[TrialSpec, ...]:
        """The specs of the trials that this one is derived from; none if it is trained itself."""
        chains = self.defense.sources
        return tuple(self.spec.replace(defense=tuple(d.part() for d in c.links)) for c in chains)

    @property
    def poison(self) -> PoisonArtifact:
        ratio = self.spec.poison_ratio if self.attack.scoped else 1.0
        parts = (self.data, self.content, self.attack, self.seed, ratio)
        return PoisonArtifact(*parts, self.setup, self.pretraining)

    @property
    def extractor(self) -> SurrogateArtifact | None:
        """The pre-trained network that the victim starts from, None for fresh victims."""
        if self.pretraining is None or not self.learner.pretrained:
            return None
        number = getattr(self.protocol, "checkpoint", 0)
        return self.pretraining.extractor(str(self.architecture.part()), number)

    @property
    def features(self) -> FeaturesArtifact | None:
        """What the frozen extractor makes of the clean data, if trials share that."""
        passes = self.learner.passes_kept(self.defense.plain)
        if self.extractor is None or self.setup is None or not passes:
            return None
        parts = (self.data, self.content, self.extractor, self.setup.rule)
        return FeaturesArtifact(*parts, passes, not self.defense.plain)

    @property
    def purified(self) -> PurifiedArtifact | None:
        """The training set after all purifying links, None if the chain has none."""
        links = self.defense.purifiers
        if not links:
            return None
        return PurifiedArtifact(self.poison, self.spec.poison_ratio, links, self.seed)

    @property
    def study(self) -> StudyArtifact | None:
        """What a link finds out about the training set, None if none of them looks."""
        link = self.defense.student
        if link is None:
            return None
        ratio, holdout = self.spec.poison_ratio, self.protocol.holdout
        return StudyArtifact(self.poison, ratio, self.purified, link, holdout, self.seed)

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """What the trial reads: data and poison, and what its defense and protocol ask for."""
        made = (self.purified, self.study, self.extractor, self.features)
        parts = (self.data, self.poison, *made)
        return tuple(part for part in parts if part is not None)

    def streams(self) -> dict[str, Stream]:
        """The victim's randomness: shared by the clean control, independent of the defense."""
        where: tuple[Any, ...] = (self.dataset.id, self.seed)
        if rep := getattr(self.protocol, "rep", 0):
            where = (*where, rep)
        return {
            "init": Stream("init", (self.architecture.id, *where)),
            "data": Stream("data", where),
            "views": Stream("views", where),
            "probe": Stream("probe", where),
        }


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
    recipe = _recipe(protocol, learner, dataset, defense, architecture.id)
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
    return Trial(
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
        _pretraining(protocol, dataset, learner.pretrained or bool(attack.extractors), catalog),
    )


def _pretraining(
    protocol: Protocol, dataset: Dataset, wanted: bool, catalog: Lookup | None
) -> Pretraining | None:
    """Where extractors come from, if the protocol has any and the trial needs one."""
    name = getattr(protocol, "pretrain", "auto")
    origin = DATASETS.make(dataset.pretraining or dataset.id if name == "auto" else name)
    recipe = protocol.pretraining(origin.id)
    if not wanted or recipe is None:
        return None
    if catalog is None:
        return Pretraining(DatasetArtifact(origin, "unknown"), "unknown", recipe)
    data = catalog.artifact(origin, 0.0)
    return Pretraining(data, catalog.content(data), recipe)


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
        return Recipe(epochs=1)  # never run: the trial is skipped with its reason
    names = tuple(d.id for d in defense.links)
    return protocol.recipe(learner.id, dataset.id, dataset.image_size, names, architecture)


def check(specs: list[TrialSpec], catalog: Lookup | None) -> tuple[list[Trial], list[str]]:
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
