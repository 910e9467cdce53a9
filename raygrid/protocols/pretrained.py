"""Victims that start from a network trained on other data, and poisons that have no target.

Users often start from public weights. Whether a poison that ruins a fresh network ruins theirs is
another question: Li et al. 2026 report that no poison they tried does. The three learners are asked
it side by side: `supervised` starts afresh, `finetune` trains all of the pre-trained network with a
new head, `linear_probe` the head alone. By default data and network of the pre-training are the
grid's own, so that nothing is downloaded and nobody has seen the test set; a user may give other
weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from raygrid.architectures.base import Architecture
from raygrid.architectures.weights import GivenWeights, Normalization
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card, Combination, require
from raygrid.nn.recipes import Recipe
from raygrid.protocols.base import PROTOCOLS, SUPERVISED, Protocol
from raygrid.protocols.toxic import JustHowToxic


@dataclass(frozen=True, kw_only=True)
class _Pretrained(Protocol):
    """What both lengths share.

    pretrain: dataset of the extractor; `auto` is the one of other classes (CIFAR-100 for CIFAR-10,
    the first five digits for the last five). pretrain_epochs: of its training.
    weights: instead of that a file of the architecture's weights (.safetensors, or a state dict of
    PyTorch), the same on every machine; `timm` are those that timm keeps for the architecture
    `timm(model=...)`. normalization: see `GivenWeights`.
    """

    stand_in: ClassVar[str] = "pretrained_quick"
    younger: ClassVar[frozenset[str]] = frozenset({"weights", "normalization"})
    pretraining_recipe: ClassVar[Recipe]

    pretrain: str = "auto"
    pretrain_epochs: int | None = None
    weights: str = ""  # a file, or timm; empty: the extractor is trained here
    normalization: Normalization = "auto"  # of the images, by given weights

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.pretrain_epochs is None or self.pretrain_epochs >= 1,
            f"pretrain_epochs is {self.pretrain_epochs}, allowed are whole numbers from 1",
        )
        own = [name for name in ("pretrain", "pretrain_epochs") if self._set(name)]
        if self.weights:
            said = f"{' and '.join(own)} is of extractors that are trained here, not of weights"
            require(not own, f"{said}={self.weights}: leave out one or the other")
        else:
            said = f"normalization={self.normalization} is of given weights: say weights=FILE"
            require(not self._set("normalization"), said)

    def _set(self, name: str) -> bool:
        """Whether a field is not at its default."""
        return bool(getattr(self, name) != type(self).__dataclass_fields__[name].default)

    @property
    def given(self) -> GivenWeights | None:
        return GivenWeights(self.weights, self.normalization) if self.weights else None

    def resolved(self) -> dict[str, Any]:
        """The fields; what weights there are stands in the key of the trials that start from them.

        The place of a file counts nowhere.
        """
        named = {"weights": "given"} if self.weights else {}
        return {**super().resolved(), **named}

    def skip(self, combination: Combination) -> str | None:
        if self.given is not None and combination.pretrains:
            assert isinstance(combination.architecture, Architecture)
            return self.given.fault(combination.architecture, combination.image_size)
        return super().skip(combination)

    @property
    def pretraining_data(self) -> str:
        return self.pretrain

    def pretraining(self, dataset: str) -> Recipe:
        usual = self.pretraining_recipe
        return usual.in_epochs(self.pretrain_epochs or usual.epochs)


@PROTOCOLS.register("pretrained")
@dataclass(frozen=True, kw_only=True)
class Pretrained(_Pretrained):
    """Sixty epochs from scratch, forty from a pre-trained network, at a tenth of the rate."""

    card = Card(
        paper="none; raygrid's own. Pre-trained victims are those of Schwarzschild et al. 2021 "
        "(Just How Toxic is Data Poisoning?), the question is that of Li et al. 2026 (BAIT)",
        notes="the extractor is trained here, on other classes of images of the same size; public "
        "ImageNet weights know more, and may have seen more: `weights` takes a file of them. The "
        "rate of BAIT is lr=0.001",
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        SUPERVISED: Recipe(epochs=60, schedule="cosine", normalize=True),
        "finetune": JustHowToxic.recipes["finetune"],
        "linear_probe": JustHowToxic.recipes["linear_probe"],
    }
    pretraining_recipe: ClassVar[Recipe] = Recipe(epochs=100, schedule="cosine", normalize=True)


@PROTOCOLS.register("pretrained_quick")
@dataclass(frozen=True, kw_only=True)
class PretrainedQuick(_Pretrained):
    """Seconds on a CPU: the same questions to small networks."""

    card = Card(
        paper="none; raygrid's own", notes="rates chosen by clean accuracy of small_cnn on digits"
    )
    tier: ClassVar[str] = "quick"
    recipes: ClassVar[Mapping[str, Recipe]] = {
        SUPERVISED: Recipe(epochs=12, batch_size=64, nesterov=True, schedule="one_cycle"),
        "finetune": Recipe(epochs=12, batch_size=64, lr=0.1, schedule="cosine"),
        "linear_probe": Recipe(
            epochs=12, batch_size=64, lr=0.5, schedule="cosine", precision="fp32"
        ),
    }
    settings: ClassVar[Mapping[str, Mapping[str, Scalar]]] = {"linear_probe": {"cache": 4}}
    pretraining_recipe: ClassVar[Recipe] = Recipe(
        epochs=20, batch_size=64, nesterov=True, schedule="one_cycle"
    )
