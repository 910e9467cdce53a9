"""How to train: recipes and probes as data. The loop that follows them is in training.py."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from raygrid.core.registry import require


@dataclass(frozen=True)
class Recipe:
    """How to train: everything about the optimizer and its schedule.

    milestones: epochs (counted from 0) before which the rate is multiplied by `gamma` (`step`).
    lr_end: last rate as a share of `lr` (both cosines); warmup_epochs: linear from `warmup_lr`.
    `cosine` counts from the first epoch, so that a warm-up ends below `lr`; `warmup_cosine` starts
    at `lr` when the warm-up is over.
    shuffle: a new order in every epoch, or the same drawn one in all.
    grad_clip: largest gradient norm, or None. precision: of the autocast region.
    """

    epochs: int
    batch_size: int = 128
    lr: float = 0.1
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    schedule: Literal["constant", "cosine", "warmup_cosine", "step", "one_cycle"] = "cosine"
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    lr_end: float = 0.0
    warmup_epochs: int = 0
    warmup_lr: float = 0.0
    grad_clip: float | None = None
    shuffle: bool = True
    drop_last: bool = False
    normalize: bool = False
    precision: Literal["bf16", "fp32"] = "bf16"

    def __post_init__(self) -> None:
        require(self.epochs >= 1, f"epochs is {self.epochs}, allowed are whole numbers from 1")
        require(self.batch_size >= 2, f"batch_size is {self.batch_size}, allowed are 2 and more")
        require(self.lr > 0, f"lr is {self.lr}, allowed are positive numbers")

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch (counted from 0)."""
        if epoch < self.warmup_epochs:
            top = self._after_warmup(self.warmup_epochs)
            return self.warmup_lr + (top - self.warmup_lr) * (epoch + 1) / self.warmup_epochs
        return self._after_warmup(epoch)

    def _after_warmup(self, epoch: int) -> float:
        if self.schedule == "step":
            return self.lr * float(self.gamma ** sum(epoch >= m for m in self.milestones))
        if self.schedule in ("cosine", "warmup_cosine"):
            first = self.warmup_epochs if self.schedule == "warmup_cosine" else 0
            done = (epoch - first) / max(1, self.epochs - first)
            low = self.lr * self.lr_end
            return low + (self.lr - low) * (1 + math.cos(math.pi * done)) / 2
        if self.schedule == "one_cycle":
            rise = max(1, round(0.2 * self.epochs))
            up = (epoch + 1) / rise
            down = (self.epochs - epoch) / (self.epochs - rise + 1)
            return self.lr * min(up, down)
        return self.lr

    def in_epochs(self, epochs: int) -> Self:
        """The same training longer or shorter, its milestones and warm-up at their shares of it."""
        moved = (max(1, m * epochs // self.epochs) for m in self.milestones)
        warmup = self.warmup_epochs * epochs // self.epochs
        return replace(self, epochs=epochs, milestones=tuple(moved), warmup_epochs=warmup)

    def with_(self, **changes: Any) -> Self:
        """A copy; changes that are None are left out."""
        return replace(self, **{k: v for k, v in changes.items() if v is not None})


@dataclass(frozen=True)
class Probing:
    """How a linear probe is fitted on features of a frozen encoder.

    passes: augmented passes over the images whose features are kept and used in turn, epoch by
    epoch; 0 for the images as they are.
    """

    recipe: Recipe
    passes: int = 0

    def __post_init__(self) -> None:
        require(self.passes >= 0, f"passes is {self.passes}, allowed are whole numbers from 0")


PROBING = Probing(
    Recipe(
        epochs=100,
        batch_size=512,
        lr=1.0,
        weight_decay=0.0,
        schedule="step",
        milestones=(60, 75, 90),
        gamma=0.2,
        precision="fp32",
    ),
    passes=10,
)
"""The probe of CP and TP; they augment anew in every epoch, here ten passes are cycled."""


def precision_of(recipe: Recipe, convolutional: bool) -> Literal["bf16", "fp32"]:
    """bf16 for convolutional networks if the recipe allows it, float32 for all others."""
    return recipe.precision if convolutional else "fp32"
