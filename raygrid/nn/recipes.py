"""How to train: recipes and probes as data. The loop that follows them is in trainer.py."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from numbers import Real
from typing import Any, Literal, Self, get_args

from raygrid.core.errors import SpecError, unknown
from raygrid.core.literals import plain_scalar
from raygrid.core.registry import require

Schedule = Literal["constant", "cosine", "warmup_cosine", "step", "one_cycle", "linear"]
Optimizer = Literal["sgd", "adam", "adamw", "muon"]
Precision = Literal["bf16", "fp32"]
Flips = Literal["random", "alternating"]
_WORDS = {"schedule": Schedule, "optimizer": Optimizer, "precision": Precision, "flips": Flips}
_SWITCHES = ("nesterov", "shuffle", "drop_last", "normalize")
_LEAST_VALUES = {"epochs": 1, "batch_size": 2, "warmup_epochs": 0, "min_steps": 0}
_NUMBERS: Mapping[str, tuple[Callable[[float], bool], str]] = {
    "lr": (lambda rate: rate > 0, "positive numbers"),
    "momentum": (lambda share: 0 <= share < 1, "0 to below 1"),
    "weight_decay": (lambda decay: decay >= 0, "numbers from 0"),
    "gamma": (lambda factor: factor >= 0, "numbers from 0"),
    "lr_end": (lambda share: 0 <= share <= 1, "0 to 1, a share of lr"),
    "warmup_lr": (lambda rate: rate >= 0, "numbers from 0"),
    "smoothing": (lambda share: 0 <= share < 1, "0 to below 1"),
}
"""What the numbers of a recipe may be, and the same in words."""


@dataclass(frozen=True)
class Group:
    """Parameters that are trained at rates of their own, by the shell pattern of their names.

    lr, momentum, weight_decay: in place of the recipe's. until: share of the training after which
    they stay as they are, their rate having fallen to 0 there; 1: the recipe's schedule.
    per_image: the rate is that of a loss summed over the batch, so that it grows with the batch.
    orthogonal: Muon's step, for parameters of two and more dimensions (optimizer `muon`).
    """

    names: str
    lr: float
    momentum: float
    weight_decay: float = 0.0
    until: float = 1.0
    per_image: bool = False
    orthogonal: bool = False

    def __post_init__(self) -> None:
        require(self.lr > 0, f"lr of {self.names} is {self.lr}, allowed are positive numbers")
        require(0 < self.until <= 1, f"until of {self.names} is {self.until}, allowed: 0 to 1")

    def takes(self, name: str) -> bool:
        """Whether a parameter of this name belongs to the group."""
        return fnmatchcase(name, self.names)


@dataclass(frozen=True)
class Recipe:
    """How to train: everything about the optimizer and its schedule.

    milestones: epochs (counted from 0) before which the rate is multiplied by `gamma` (`step`).
    lr_end: last rate as a share of `lr` (both cosines, `linear`); warmup_epochs: linear from
    `warmup_lr`. `cosine` counts from the first epoch, so that a warm-up ends below `lr`;
    `warmup_cosine` starts at `lr` when the warm-up is over.
    shuffle: a new order in every epoch, or the same drawn one in all.
    grad_clip: largest gradient norm, or None. precision: of the autocast region.
    stepwise: the rate changes with every step instead of with every epoch, `warmup`: while it
    warms up only, from `warmup_lr` itself on.
    groups: parameters with rates of their own; the first that takes a name counts.
    min_steps: smaller sets are trained in smaller batches, so that there are as many; 0: never.
    smoothing: share of a label that is spread evenly over all classes.
    flips: an augmentation that mirrors draws anew for every image and epoch, or mirrors once at
        random before the first epoch and from then on all images in every second epoch.

    Raises SpecError that names a word or number which is not allowed, and what is.
    """

    epochs: int
    batch_size: int = 128
    lr: float = 0.1
    optimizer: Optimizer = "sgd"
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    schedule: Schedule = "cosine"
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    lr_end: float = 0.0
    warmup_epochs: int = 0
    warmup_lr: float = 0.0
    grad_clip: float | None = None
    shuffle: bool = True
    drop_last: bool = False
    normalize: bool = False
    precision: Precision = "bf16"
    stepwise: bool | Literal["warmup"] = False
    groups: tuple[Group, ...] = ()
    min_steps: int = 0
    smoothing: float = 0.0
    flips: Flips = "random"

    def __post_init__(self) -> None:
        for name in (*_LEAST_VALUES, *_NUMBERS, "grad_clip"):
            object.__setattr__(self, name, _as_own(name, getattr(self, name)))
        for name, kind in _WORDS.items():
            if (word := getattr(self, name)) not in get_args(kind):
                raise SpecError(unknown(name, str(word), get_args(kind)))
        for name, least in _LEAST_VALUES.items():
            if not _is_whole(value := getattr(self, name), least):
                raise SpecError(f"{name} is {value!r}, allowed are whole numbers from {least}")
        for name, (allowed, words) in _NUMBERS.items():
            if not (_is_number(value := getattr(self, name)) and allowed(value)):
                raise SpecError(f"{name} is {value!r}, allowed are {words}")
        for name in _SWITCHES:
            switch = getattr(self, name)
            require(isinstance(switch, bool), f"{name} is {switch!r}, allowed are True and False")
        self._check_others()

    def _check_others(self) -> None:
        falls: Any = self.milestones
        if isinstance(falls, list | tuple):
            falls = tuple(_as_own("milestones", each) for each in falls)
            object.__setattr__(self, "milestones", falls)
        whole = isinstance(falls, tuple) and all(_is_whole(each, 0) for each in falls)
        require(whole, f"milestones is {falls!r}, allowed is a tuple of epochs")
        clip, steps = self.grad_clip, self.stepwise
        positive = clip is None or (_is_number(clip) and clip > 0)
        require(positive, f"grad_clip is {clip!r}, allowed are None and positive numbers")
        known = isinstance(steps, bool) or steps == "warmup"
        require(known, f"stepwise is {steps!r}, allowed are True, False and 'warmup'")
        groups = all(isinstance(each, Group) for each in self.groups)
        require(groups, f"groups is {self.groups!r}, allowed is a tuple of Groups")
        momentum = self.optimizer in ("sgd", "muon")
        require(momentum or not self.groups, f"{self.optimizer} has no groups of parameters")
        muon = self.optimizer == "muon" or not any(g.orthogonal for g in self.groups)
        require(muon, f"{self.optimizer} takes no orthogonal steps, muon does")

    def resolved(self) -> dict[str, Any]:
        """All of it as JSON values, for keys.

        Fields that are younger than the first keys are left out at their defaults.
        """
        values = dataclasses.asdict(self)
        young = {f.name: f.default for f in dataclasses.fields(self) if f.name in _YOUNG}
        return {k: v for k, v in values.items() if k not in young or v != young[k]}

    def batch_for(self, images: int) -> int:
        """Images of a batch of a set of this size, 2 or more where there are as many."""
        size = self.batch_size
        if self.min_steps:
            size = min(size, max(2, images * self.epochs // self.min_steps))
        return min(size, images)

    def rate_of(self, group: Group | None, epoch: float, batch_size: int) -> float:
        """The learning rate of a group of parameters, None for the others; see `rate`."""
        if group is None:
            return self.rate(epoch)
        scale = batch_size if group.per_image else 1
        if group.until < 1:
            return scale * group.lr * max(0.0, 1 - epoch / (group.until * self.epochs))
        return scale * group.lr * self.rate(epoch) / self.lr

    def each_step(self, epoch: int) -> bool:
        """Whether the rate changes within an epoch (counted from 0)."""
        return self.stepwise is True or (self.stepwise == "warmup" and epoch < self.warmup_epochs)

    def rate(self, epoch: float) -> float:
        """The learning rate of an epoch (counted from 0), or between two."""
        if epoch < self.warmup_epochs:
            top = self._after_warmup(self.warmup_epochs)
            done = epoch if self.stepwise == "warmup" else epoch + 1
            return self.warmup_lr + (top - self.warmup_lr) * done / self.warmup_epochs
        return self._after_warmup(epoch)

    def _after_warmup(self, epoch: float) -> float:
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
        if self.schedule == "linear":
            low = self.lr * self.lr_end
            return self.lr + (low - self.lr) * epoch / self.epochs
        return self.lr

    def in_epochs(self, epochs: int) -> Self:
        """The same training longer or shorter, its milestones and warm-up at their shares of it."""
        moved = (max(1, m * epochs // self.epochs) for m in self.milestones)
        warmup = self.warmup_epochs * epochs // self.epochs
        return replace(self, epochs=epochs, milestones=tuple(moved), warmup_epochs=warmup)

    def with_(self, **changes: Any) -> Self:
        """A copy; changes that are None are left out."""
        return replace(self, **{k: v for k, v in changes.items() if v is not None})


def _as_own(name: str, given: Any) -> Any:
    """Keys hold Python's own numbers, so that those of numpy become them here."""
    return plain_scalar(name, given) if isinstance(given, Real) else given


def _is_whole(given: Any, least: int) -> bool:
    return type(given) is int and given >= least


def _is_number(given: Any) -> bool:
    number = isinstance(given, int | float) and not isinstance(given, bool)
    return number and math.isfinite(given)


_YOUNG = ("stepwise", "groups", "min_steps", "smoothing", "flips")


@dataclass(frozen=True)
class Probing:
    """How a linear probe is fitted on features of a frozen encoder.

    passes: augmented passes over the images whose features are kept and used in turn, epoch by
    epoch; 0 for the images as they are. printed: what the source reports, the accuracy after the
    last epoch or the best over all of them.
    """

    recipe: Recipe
    passes: int = 0
    printed: Literal["final", "peak"] = "final"

    def __post_init__(self) -> None:
        alternate = self.recipe.flips == "alternating"
        require(not alternate, "flips cannot alternate in the kept features of a probe")
        require(self.passes >= 0, f"passes is {self.passes}, allowed are whole numbers from 0")

    def resolved(self) -> dict[str, Any]:
        """All of it as JSON values, for keys."""
        more = {} if self.printed == "final" else {"printed": self.printed}
        return {"recipe": self.recipe.resolved(), "passes": self.passes, **more}


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


def precision_of(recipe: Recipe, convolutional: bool) -> Precision:
    """bf16 for convolutional networks if the recipe allows it, float32 for all others."""
    return recipe.precision if convolutional else "fp32"
