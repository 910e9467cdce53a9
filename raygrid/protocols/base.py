"""What a protocol is: how a source trains and tests its victims. Part of every key.

A protocol is data: recipes by learner, and switches. A field set in a spec (`quick(epochs=3)`)
overrides the recipe.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Literal

from raygrid.architectures.weights import GivenWeights
from raygrid.core.errors import SpecError, unknown
from raygrid.core.literals import Scalar
from raygrid.core.registry import Method, Registry, require
from raygrid.nn import augment
from raygrid.nn.recipes import PROBING, Probing, Recipe
from raygrid.protocols.setups import SetupRule

SUPERVISED = "supervised"
_ADAM: Mapping[str, object] = {"optimizer": "adam", "lr": 1e-4, "weight_decay": 0.0}
TRANSFORMERS: Mapping[str, Mapping[str, object]] = {
    **{name: _ADAM for name in ("vit_small", "cait_small")},
    **{name: {**_ADAM, "lr": 1e-3} for name in ("small_vit", "small_cait")},
}
"""ISS and D-VAE train theirs as all else, by SGD at 0.1, at which these do not learn. The rate of
OP's code is in its own protocol."""


@dataclass(frozen=True, kw_only=True)
class Protocol(Method):
    """Recipes by learner id; a learner that is not listed brings its own or cannot be trained.

    recipes_64: for images of 64 pixels and more, where the source has other ones.
    epochs: of another number than the recipe's; the steps of its schedule move along.
    by_dataset, by_defense, by_architecture: changes of the supervised recipe by id.
    on_dataset: more of them, by a dataset and a defense or an architecture; they win.
    augmentations: the source's standard augmentation by dataset id, where it is not the dataset's.
    patience: epochs after the peak until a trial may stop early; None runs every epoch.
    settings: parameters of learners, by learner id, that differ from the learners' defaults.
    stand_in: the protocol that asks the same on a CPU in minutes.
    probe: how linear probes are fitted; probe_lr: their rate by learner, where it differs.
    min_epochs: never stop before. probe_data: what the linear probe of a learner is fitted on.
    validation: share of the training set held out, clean, before poisoning.
    holdout: share of the set that reaches the learner held out after poisoning and purifying, for
        a victim without clean images.
    """

    recipes: ClassVar[Mapping[str, Recipe]]
    recipes_64: ClassVar[Mapping[str, Recipe]] = {}
    by_dataset: ClassVar[Mapping[str, Mapping[str, object]]] = {}
    by_defense: ClassVar[Mapping[str, Mapping[str, object]]] = {}
    on_dataset: ClassVar[Mapping[tuple[str, str], Mapping[str, object]]] = {}
    augmentations: ClassVar[Mapping[str, str]] = {}
    settings: ClassVar[Mapping[str, Mapping[str, Scalar]]] = {}
    probe: ClassVar[Probing] = PROBING
    probe_lr: ClassVar[Mapping[str, float]] = {}
    by_architecture: ClassVar[Mapping[str, Mapping[str, object]]] = {
        name: {**changes, "schedule": "cosine"} for name, changes in TRANSFORMERS.items()
    }
    tier: ClassVar[str] = "paper"
    stand_in: ClassVar[str] = "quick"

    epochs: int | None = None  # in place of the recipe's
    batch_size: int | None = None  # in place of the recipe's
    lr: float | None = None  # the highest learning rate, in place of the recipe's
    patience: int | None = None  # epochs after the peak until a trial stops; none: it never does
    min_epochs: int = 1  # epochs before which it never stops
    probe_data: Literal["poisoned", "clean"] = "poisoned"  # that a linear probe is fitted to
    validation: float = 0.0  # share of the training images held out, clean, before poisoning
    holdout: float = 0.0  # share of what reaches the victim that is held out, poisoned

    @classmethod
    def lacking(cls) -> Iterable[str]:
        kinds = ("by_dataset", "by_defense", "by_architecture", "on_dataset")
        known = [f.name for f in fields(Recipe)]
        for kind in kinds:
            for where, changes in getattr(cls, kind).items():
                odd = (name for name in changes if name not in known)
                said = f"{kind} of {where!r}"
                yield from (f"{said}: {unknown('field of a recipe', n, known)}" for n in odd)
        for kind in ("recipes", "recipes_64"):
            odd = (n for n, made in getattr(cls, kind).items() if not isinstance(made, Recipe))
            yield from (f"{kind} of {name!r} is no Recipe" for name in odd)
        for dataset, name in cls.augmentations.items():
            if name not in augment.STANDARD_NAMES:
                said = unknown("augmentation", name, augment.STANDARD_NAMES)
                yield f"augmentations of {dataset!r}: {said}"

    def __post_init__(self) -> None:
        require(
            self.patience is None or self.patience >= 1,
            f"patience is {self.patience}, allowed are none and whole numbers from 1",
        )
        least = self.min_epochs
        require(least >= 1, f"min_epochs is {least}, allowed are whole numbers from 1")
        require(self.epochs is None or self.epochs >= 1, f"epochs is {self.epochs}, allowed from 1")
        size, rate = self.batch_size, self.lr
        require(size is None or size >= 2, f"batch_size is {size}, allowed are 2 and more")
        require(rate is None or rate > 0, f"lr is {rate}, allowed are positive numbers")
        require(0 <= self.validation < 1, f"validation is {self.validation}, allowed: 0 to below 1")
        require(0 <= self.holdout < 1, f"holdout is {self.holdout}, allowed: 0 to below 1")

    def recipe(
        self,
        learner: str,
        dataset: str,
        image_size: int,
        defenses: tuple[str, ...] = (),
        architecture: str = "",
    ) -> Recipe:
        """The recipe of one trial; raises SpecError if the protocol has none for the learner."""
        known = {**self.recipes, **(self.recipes_64 if image_size >= 64 else {})}
        if learner not in known:
            raise SpecError(f"protocol {self.id} has no recipe for the learner {learner}")
        recipe = known[learner]
        if learner == SUPERVISED:
            recipe = recipe.with_(**self.by_dataset.get(dataset, {}))
            for defense in defenses:
                recipe = recipe.with_(**self.by_defense.get(defense, {}))
            recipe = recipe.with_(**self.by_architecture.get(architecture, {}))
            for name in (*defenses, architecture):
                recipe = recipe.with_(**self.on_dataset.get((dataset, name), {}))
        return self.as_set(recipe)

    def as_set(self, recipe: Recipe) -> Recipe:
        """A recipe with the epochs, batch size and rate that the spec sets."""
        if self.epochs is not None:
            recipe = recipe.in_epochs(self.epochs)
        return recipe.with_(batch_size=self.batch_size, lr=self.lr)

    def probing(self, learner: str) -> Probing:
        """How a linear probe is fitted on the features of a learner."""
        recipe = self.probe.recipe.with_(lr=self.probe_lr.get(learner))
        return replace(self.probe, recipe=recipe)

    def stops(self, accuracies: Sequence[float]) -> bool:
        """Whether a trial may end early, from its test accuracy by epoch.

        True once `patience` epochs have passed without a new peak, never before `min_epochs`.
        """
        if self.patience is None or len(accuracies) < self.min_epochs:
            return False
        peak = max(range(len(accuracies)), key=lambda i: (accuracies[i], -i))
        return len(accuracies) - 1 - peak >= self.patience

    @classmethod
    def stand_in_params(cls, params: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """What of a spec's parameters holds for the stand-in too."""
        return {}

    def has(self, learner: str) -> bool:
        return learner in self.recipes

    def setup_rule(self, dataset: str, pretrained: bool) -> SetupRule | None:
        """Where the set-ups of targeted attacks come from; None if trials have no target.

        pretrained: whether the victim starts from a pre-trained extractor. Raises SpecError.
        """
        return None

    @property
    def pretraining_data(self) -> str:
        """The dataset that extractors are pre-trained on; `auto` is the one of other classes."""
        return "auto"

    @property
    def given(self) -> GivenWeights | None:
        """The weights of extractors that a user gives; None where they are pre-trained here."""
        return None

    @property
    def extractor_number(self) -> int:
        """Which of several pre-trained extractors the victim starts from."""
        return 0

    @property
    def repetition(self) -> int:
        """The number of the victim's training on the same poison; each draws anew."""
        return 0

    def pretraining(self, dataset: str) -> Recipe | None:
        """How extractors are pre-trained on a dataset, None where there are none."""
        return None


PROTOCOLS: Registry[Protocol] = Registry("protocol", Protocol)
