"""The protocols of targeted and backdoor poisoning: set-ups, pre-training, victims.

Schwarzschild et al. 2021 (Just How Toxic is Data Poisoning?), sections 3 and 4. The seed of a trial
is the number of its set-up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from raygrid.core.errors import SpecError
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card, Combination, require
from raygrid.nn.recipes import Recipe
from raygrid.protocols.base import PROTOCOLS, SUPERVISED, Protocol
from raygrid.protocols.setups import SetupRule


@dataclass(frozen=True)
class Arena:
    """One cell of the benchmark: K poisons, the share of their class that they are, the patch.

    file, scaling: official set-ups for K, and for another K in its place. whole: the victim is
    trained on all images of the data set, not on just so many that K is that share.
    """

    poisons: int
    share: float
    patch: int
    file: str = ""
    scaling: str = ""
    whole: bool = False

    def per_class(self, poisons: int) -> int | None:
        if self.whole and poisons == self.poisons:
            return None
        return round(poisons / self.share)

    def file_for(self, poisons: int) -> str:
        return self.file if poisons == self.poisons else f"{self.scaling}_{poisons}"


ARENAS = {
    ("cifar10", True): Arena(25, 0.1, 5, "cifar10_transfer_learning", "scaling_cifar10"),
    ("cifar10", False): Arena(500, 0.1, 5, "cifar10_from_scratch", "scaling_cifar10", True),
    ("tinyimagenet_last", True): Arena(250, 0.5, 8, "tinyimagenet_transfer_learning", whole=True),
    ("tinyimagenet", False): Arena(
        250, 0.5, 8, "tinyimagenet_from_scratch", "scaling_tinyimagenet", True
    ),
}
"""By dataset and whether the victim starts from a pre-trained extractor."""
OTHER_ARENA = Arena(25, 0.1, 5)
"""Other datasets, with set-ups of our own: the rules of CIFAR-10 transfer."""
_OWN = "own"
_HEAD_RECIPE = Recipe(
    epochs=40,
    lr=0.01,
    weight_decay=2e-4,
    schedule="step",
    milestones=(30,),
    precision="fp32",
)
"""The linear layer of the transfer cells."""


_ADAM_RATE = 1e-3
"""Of Adam, where none is given: the rates of the recipes are SGD's."""


@dataclass(frozen=True, kw_only=True)
class Targeted(Protocol):
    """Base of the protocols that put every trial before a target.

    setups: `own`, or the folder of the official ones. poisons: K; the victim's training set grows
    with it, unless per_class says how many images of a class it has. pair: classes of target and
    bases, `target:base`. optimizer: of the victim and of the extractor that it starts from.
    pretrain: dataset of the extractor; `auto` is the one of other classes.
    checkpoint: number of the victim's extractor; the attacker has number 0, so that any other makes
    a victim of the same architecture a gray box. rep: number of the victim's training on a poison.
    """

    stand_in: ClassVar[str] = "toxic_quick"
    pretraining_recipe: ClassVar[Recipe]
    pretraining_by_dataset: ClassVar[Mapping[str, Recipe]] = {}

    setups: str = _OWN
    poisons: int | None = None
    per_class: int | None = None
    patch: int | None = None  # side of the triggers, pixels
    pair: str = "any"
    pretrain: str = "auto"
    pretrain_epochs: int | None = None
    optimizer: Literal["recipe", "sgd", "adam"] = "recipe"
    checkpoint: int = 0
    rep: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("poisons", "per_class", "patch", "pretrain_epochs"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name} is {value}, allowed from 1")
        for name in ("checkpoint", "rep"):
            value = getattr(self, name)
            require(value >= 0, f"{name} is {value}, allowed are whole numbers from 0")
        self._classes()

    def resolved(self) -> dict[str, Any]:
        """Not where the official set-ups lie: what they hold is part of a trial's set-up."""
        place = _OWN if self.setups == _OWN else "official"
        return {**super().resolved(), "setups": place}

    def _classes(self) -> tuple[int, int] | None:
        if self.pair == "any":
            return None
        target, colon, base = self.pair.partition(":")
        good = colon and target.isdecimal() and base.isdecimal() and int(target) != int(base)
        require(bool(good), f"pair is {self.pair!r}, allowed are any and two classes like 0:6")
        return int(target), int(base)

    def setup_rule(self, dataset: str, pretrained: bool) -> SetupRule:
        known = ARENAS.get((dataset, pretrained))
        arena = known or OTHER_ARENA
        count = self.poisons or arena.poisons
        official = self.setups != _OWN
        if official and known is None:
            kind = "pre-trained" if pretrained else "fresh"
            raise SpecError(f"no official set-ups for {kind} victims on {dataset}; use setups=own")
        if official and self.pair != "any":
            raise SpecError("official set-ups have their own pairs of classes; use setups=own")
        return SetupRule(
            cell=f"{dataset}/{'transfer' if pretrained else 'scratch'}",
            poisons=count,
            per_class=self.per_class or arena.per_class(count),
            patch=self.patch or arena.patch,
            pair=self._classes(),
            folder=self.setups if official else "",
            file=arena.file_for(count) if official else "",
        )

    @property
    def pretraining_data(self) -> str:
        return self.pretrain

    @property
    def extractor_number(self) -> int:
        return self.checkpoint

    @property
    def repetition(self) -> int:
        return self.rep

    @classmethod
    def stand_in_params(cls, params: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """Keeps the changed parameter in the stand-in, if one on five digit classes can have it."""
        kept = {k: v for k, v in params.items() if k in ("optimizer", "patch", "rep")}
        if int(params.get("poisons", 100)) <= 50:
            kept["poisons"] = params["poisons"]
        if "pair" in params:
            kept["pair"] = "0:1"
        if params.get("pretrain") == "cifar10":
            kept["pretrain"] = "photo_digits_last"
        return kept

    def pretraining(self, dataset: str) -> Recipe:
        usual = self.pretraining_by_dataset.get(dataset, self.pretraining_recipe)
        return self._optimized(usual.in_epochs(self.pretrain_epochs or usual.epochs), _ADAM_RATE)

    def recipe(
        self,
        learner: str,
        dataset: str,
        image_size: int,
        defenses: tuple[str, ...] = (),
        architecture: str = "",
    ) -> Recipe:
        made = super().recipe(learner, dataset, image_size, defenses, architecture)
        return self._optimized(made, self.lr or _ADAM_RATE)

    def _optimized(self, recipe: Recipe, adam_rate: float) -> Recipe:
        """A recipe by the optimizer that is asked for, the extractor's as well as the victim's."""
        if self.optimizer == "adam":
            return recipe.with_(optimizer="adam", lr=adam_rate)
        return recipe if self.optimizer == "recipe" else recipe.with_(optimizer=self.optimizer)

    def skip(self, combination: Combination) -> str | None:
        side = combination.image_size
        if self.patch is not None and self.patch > side - 5:
            return f"patch is {self.patch}, allowed in {side} pixels are 1 to {side - 5}"
        if self.pair != "any" and max(self._classes() or (0,)) >= combination.classes:
            return f"pair is {self.pair}, allowed are classes 0 to {combination.classes - 1}"
        return None


@PROTOCOLS.register("just_how_toxic")
@dataclass(frozen=True, kw_only=True)
class JustHowToxic(Targeted):
    """The benchmark: 40 epochs for a linear layer, 200 for a whole network."""

    card = Card(
        paper="Schwarzschild et al. 2021 (Just How Toxic is Data Poisoning?), section 4",
        code="aks2203/poisoning-benchmark@97a67ae",
        notes="pre-training on Tiny ImageNet at 0.1 and in batches of 128 as the paper says (its "
        "scripts: 0.01, 64). Extractors normalize by their own training set; the code takes "
        "CIFAR-10's numbers for CIFAR-100. They see what is usual for their data, crops and flips "
        "on CIFAR, those of FC's and CP's authors plain images. Crops have 4 pixels of padding at "
        "every size. On Tiny ImageNet its networks are resnet34_strided and vgg16_max, as victims "
        "and as surrogates. All set-ups share one extractor of an architecture "
        "(`checkpoint` is the victim's), where the paper's section 3 draws one of ten for every "
        "trial: rates vary here over set-ups, not over extractors",
    )
    augmentations: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("tinyimagenet", "tinyimagenet_first", "tinyimagenet_last"), "crop4_flip"
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        SUPERVISED: Recipe(
            epochs=200,
            weight_decay=2e-4,
            schedule="step",
            milestones=(100, 150),
            normalize=True,
        ),
        "linear_probe": _HEAD_RECIPE,
        "finetune": Recipe(
            epochs=40, lr=0.01, weight_decay=2e-4, schedule="step", milestones=(30,)
        ),
    }
    pretraining_recipe: ClassVar[Recipe] = Recipe(
        epochs=400, weight_decay=2e-4, schedule="step", milestones=(200, 300, 350)
    )
    pretraining_by_dataset: ClassVar[Mapping[str, Recipe]] = dict.fromkeys(
        ("tinyimagenet", "tinyimagenet_first"),
        Recipe(epochs=200, weight_decay=2e-4, schedule="step", milestones=(100, 150)),
    )


@PROTOCOLS.register("toxic_quick")
@dataclass(frozen=True, kw_only=True)
class ToxicQuick(Targeted):
    """Seconds on a CPU: the same questions to small networks."""

    card = Card(
        paper="none; raygrid's own",
        notes="the rate of the linear layer is ten times the benchmark's: 0.01 under-fits in so "
        "few steps",
    )
    tier: ClassVar[str] = "quick"
    recipes: ClassVar[Mapping[str, Recipe]] = {
        SUPERVISED: Recipe(
            epochs=16, batch_size=64, nesterov=True, schedule="step", milestones=(8, 12)
        ),
        "linear_probe": _HEAD_RECIPE.with_(lr=0.1),
        "finetune": Recipe(
            epochs=20, lr=0.01, weight_decay=2e-4, schedule="step", milestones=(15,)
        ),
    }
    settings: ClassVar[Mapping[str, Mapping[str, Scalar]]] = {"linear_probe": {"cache": 4}}
    pretraining_recipe: ClassVar[Recipe] = Recipe(
        epochs=20, batch_size=64, nesterov=True, schedule="one_cycle"
    )
