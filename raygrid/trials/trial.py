"""A decided trial: its methods and recipe, its key, the artifacts that it reads."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from raygrid.architectures.base import Architecture
from raygrid.attacks.base import Attack
from raygrid.core.hashing import key_of
from raygrid.core.images import count_at
from raygrid.core.registry import Combination, Method
from raygrid.core.seeds import Stream
from raygrid.core.spec import Part, TrialSpec
from raygrid.datasets.base import Dataset
from raygrid.defenses.chain import Chain
from raygrid.learners.base import Learner
from raygrid.nn.recipes import Probing, Recipe
from raygrid.protocols import PROTOCOLS, Protocol
from raygrid.protocols.setups import SetupPlan
from raygrid.trials.artifacts import (
    Artifact,
    BridgeArtifact,
    DatasetArtifact,
    DenoiserArtifact,
    PoisonArtifact,
    Pretraining,
    PurifiedArtifact,
    StudyArtifact,
    SurrogateArtifact,
)
from raygrid.trials.artifacts.features import FeaturesArtifact

LOOP_VERSION = 1
"""Of the training loop and the streams: raise it when results of unchanged methods change."""


def _odd_share(name: str, share: float, images: int) -> str | None:
    """Why a share of so many images cannot be held out, or None."""
    held = round(share * images)
    if share == 0 or 0 < held < images:
        return None
    what = "holds out none" if held == 0 else "leaves none to train on"
    return f"{name} {share:g} of {images:,} images {what}; allowed are 0 and shares between"


@dataclass(frozen=True)
class Trial:
    """One fully decided trial. `spec` is in canonical form: only non-defaults are printed.

    setup: the target that it is asked about; pretraining: where its extractors come from. None
    where the protocol has no such thing. priors: by purifying link the network that it starts
    from, None for most.
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
    priors: tuple[DenoiserArtifact | BridgeArtifact | None, ...] = ()

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
        if any(self.priors):
            more["priors"] = [prior.key for prior in self.priors if prior is not None]
        if self.augmentation != self.dataset.augmentation:
            more["augmentation"] = self.augmentation
        return {
            "version": LOOP_VERSION,
            "content": self.content,
            "dataset": self.dataset.resolved(),
            "attack": self.attack.resolved(),
            "surrogates": [s.resolved() for s in self.attack.needs()],
            "poison_ratio": self.spec.poison_ratio,
            "defense": self.defense.resolved(),
            "architecture": self.architecture.resolved(),
            "learner": self.learner.resolved(),
            "protocol": self.protocol.resolved(),
            "recipe": self.recipe.resolved(),
            "probing": self.probing.resolved() if self.learner.views else None,
            "seed": self.seed,
            **more,
        }

    @property
    def augmentation(self) -> str:
        """The standard augmentation by its name: the dataset's, or that of the protocol's source.

        Whatever is shared between protocols (purified sets, studies) goes by the dataset's.
        """
        return self.protocol.augmentations.get(self.dataset.id, self.dataset.augmentation)

    @property
    def probing(self) -> Probing:
        """How the protocol fits the linear probe of this learner."""
        return self.protocol.probing(self.learner.id)

    def combination(self) -> Combination:
        """The methods side by side, for their `skip`."""
        return Combination(
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
            pretrains=self.pretraining is not None,
            train_size=self.data.train_size,
            stops_early=self.protocol.patience is not None,
            images=self.poison.pool_size if self.dataset.looked_at else 0,
        )

    def skip(self) -> str | None:
        """Why this combination cannot be run, or None."""
        if self.learner.recipe is None and not self.protocol.has(self.learner.id):
            return self._no_recipe()
        if self.setup is not None and (reason := self.setup.rule.check(self.seed)):
            return reason
        combination = self.combination()
        reasons = (method.skip(combination) for method in self.methods)
        return next(filter(None, reasons), None) or self.holdout_fault() or self.ratio_fault()

    def holdout_fault(self) -> str | None:
        """Why a share that is held out is no part of the images, or None; of data looked at."""
        if not self.dataset.looked_at:
            return None
        whole, left = self.dataset.train_size, self.data.train_size
        validation = _odd_share("validation", self.protocol.validation, whole)
        return validation or _odd_share("holdout", self.protocol.holdout, left)

    def ratio_fault(self) -> str | None:
        """Why not one image is poisoned although some should be, or None; of data looked at."""
        ratio, whole = self.spec.poison_ratio, replace(self.poison, ratio=1.0).rows_made
        if self.attack.id == "clean" or not self.dataset.looked_at or count_at(ratio, whole):
            return None
        least = math.ceil(1e6 / max(whole, 1)) / 1e6
        said = f"poison_ratio {ratio} of {whole:,} images is less than one"
        return f"{said}; allowed from {least:g}"

    @property
    def methods(self) -> tuple[Method, ...]:
        """All that the spec names, in its order."""
        before = (self.dataset, self.attack, *self.defense.links)
        return (*before, self.architecture, self.learner, self.protocol)

    def _no_recipe(self) -> str:
        learner = self.learner.id
        said = f"protocol {self.protocol.id} has no recipe for the learner {learner}"
        having = [name for name in PROTOCOLS if learner in PROTOCOLS[name].recipes]
        if having:
            return f"{said}; these have: {', '.join(having)}"
        cls = type(self.learner).__name__
        return f"{said}, and no other has one: add it there, or set `recipe` on the class {cls}"

    @property
    def bases(self) -> tuple[TrialSpec, ...]:
        """The specs of the trials that this one is derived from; none if it is trained itself.

        Where standard augmentation is none, training without it is `standard` training.
        """
        idle = self.defense.plain and self.augmentation == "none"
        chains = (Chain.make((Part("standard"),)),) if idle else self.defense.sources
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
        number = self.protocol.extractor_number
        return self.pretraining.extractor(str(self.architecture.part()), number)

    @property
    def features(self) -> FeaturesArtifact | None:
        """What the frozen extractor makes of the clean data, if trials share that."""
        passes = self.learner.passes_kept(self.defense.plain)
        if self.extractor is None or self.setup is None or not passes:
            return None
        parts = (self.data, self.content, self.extractor, self.setup.rule)
        return FeaturesArtifact(*parts, passes, "none" if self.defense.plain else self.augmentation)

    @property
    def purified(self) -> PurifiedArtifact | None:
        """The training set after all purifying links, None if the chain has none."""
        links = self.defense.purifiers
        if not links:
            return None
        return PurifiedArtifact(self.poison, self.spec.poison_ratio, links, self.seed, self.priors)

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
        if rep := self.protocol.repetition:
            where = (*where, rep)
        return {
            "init": Stream("init", (self.architecture.id, *where)),
            "data": Stream("data", where),
            "views": Stream("views", where),
            "probe": Stream("probe", where),
        }
