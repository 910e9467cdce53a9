"""What a contradiction between sources is: settings that are run side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from raygrid.core.literals import Scalar

Change = Mapping[str, str | Mapping[str, Scalar]]
"""By axis (attack, defense, learner, protocol): another method, of defenses a whole chain, or
parameters that a setting sets."""
EM_SHORT: Mapping[str, Scalar] = {"surrogate": "small_cnn", "max_rounds": 10}
"""Generators of EM differ in steps and batches, which `quick` makes equal: only rounds are cut."""

REM_CODE_SHORT: Mapping[str, Scalar] = {
    "surrogate": "small_cnn",
    "train_steps": 200,
    "decay_every": 80,
}
"""The REM code's surrogate, in a shorter training."""
REM_SHORT: Mapping[str, Scalar] = {
    **REM_CODE_SHORT,
    "steps": 4,
    "step": 0.5,
    "copies": 1,
    "adv_steps": 2,
}
"""Its program of REM and SEM, made shorter alike."""


@dataclass(frozen=True)
class Setting:
    """One side of a contradiction.

    small: parameters of its attack at the scales for a CPU, in the place of the attack's `quick`.
    printed: the cell of the paper that has this setting, up to the protocol; {attack}, {defense}
        and {learner} are those that are compared.
    screen: what else its attack has at scale screen, where steps are fewer than a paper's.
    """

    name: str
    change: Change = field(default_factory=dict)
    small: Mapping[str, Scalar] | None = None
    printed: str = ""
    screen: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True)
class Contradiction:
    """Settings side by side, everything else equal, on each attack, defense and learner.

    defenses: the first one shows whether an attack works here at all, and no setting changes it.
    dataset: at the scales for a GPU, if the papers disagree on another one. sgd: trained by SGD at
    every scale, since AdamW does not feel the scale of a loss. shortened: parameters of defenses at
    the scales for a CPU, beside their `quick`.
    """

    says: str
    settings: Sequence[Setting]
    attacks: Sequence[str]
    defenses: Sequence[str] = ("standard",)
    learners: Sequence[str] = ("supervised",)
    metric: Literal["final_acc", "peak_acc"] = "final_acc"
    dataset: str = "cifar10"
    sgd: bool = False
    shortened: Mapping[str, Mapping[str, Scalar]] = field(default_factory=dict)

    @property
    def defended(self) -> bool:
        """Whether settings differ in the defense: then there is no question under the first one."""
        return any("defense" in setting.change for setting in self.settings)


def printed_in(paper: str, attack: str = "{attack}", defense: str = "{defense}") -> str:
    """A cell of a paper's protocol on CIFAR-10 and ResNet-18."""
    return f"cifar10/{attack}/{defense}/resnet18/{{learner}}/{paper}"
