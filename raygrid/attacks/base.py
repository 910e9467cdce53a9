"""What an attack is: it proposes, the base class holds it to its budget."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from raygrid.attacks.surrogates import SurrogateRecipe
from raygrid.budget import Budget
from raygrid.data import Images, Poison, to_uint8
from raygrid.errors import SpecError
from raygrid.registry import Cell, Method, Registry
from raygrid.seeds import Stream
from raygrid.setups import Scene
from raygrid.spec import Scalar

_CHUNK = 2**22
"""Values that are held to a budget at once: temporaries stay small and in cache."""


class Progress(Protocol):
    """Where a long generation says how far it is and keeps what it needs to go on."""

    def report(self, done: int, total: int, **facts: float) -> None:
        """Say that `done` of `total` units are made, with any numbers worth seeing."""

    def save(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Keep a checkpoint; the one before is replaced. The tensors may change after the call."""

    def load(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]] | None:
        """The checkpoint of a generation that was cut off, or None."""


class Silent:
    """Progress that goes nowhere."""

    def report(self, done: int, total: int, **facts: float) -> None: ...

    def save(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None: ...

    def load(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]] | None:
        return None


@dataclass
class Craft:
    """What an attack works with besides the images.

    stream: all randomness. surrogates: networks in eval mode without gradients, by recipe name.
    rows: the part of the training set to perturb (all of it unless the attack is sharded).
    facts: what the attack writes down about its work, as JSON values; kept beside the poison.
    scene: the set-up of the trial, for attacks on a target.
    """

    stream: Stream
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    surrogates: Mapping[str, nn.Module] = field(default_factory=dict)
    progress: Progress = field(default_factory=Silent)
    rows: range | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    scene: Scene | None = None

    def index(self, images: Images) -> Tensor:
        """int64 rows to perturb, on the CPU."""
        rows = self.rows if self.rows is not None else range(len(images))
        return torch.arange(rows.start, rows.stop)


@dataclass(frozen=True, kw_only=True)
class Attack(Method):
    """Perturbs training images, labels untouched.

    A subclass that perturbs has a field `budget` whose default is the method's own.
    norms: budgets it can hold. sharded: rows are independent given images and surrogates, so any
    range of rows can be made alone. seeded: whether the seed changes the result.
    grows: the default budget is meant for 32 pixels and is scaled by side / 32; a budget that
    the user sets is taken as it is. passes: forward passes per training image, for estimates
    (a backward pass to the pixels counts as one, a full one as two).
    on_target: perturbs the bases of a set-up alone, for its target. one_surrogate: the surrogates
    of `needs` are the same for every seed. quick: parameters with which it takes seconds on a CPU.
    """

    norms: ClassVar[tuple[str, ...]] = ("linf",)
    sharded: ClassVar[bool] = False
    seeded: ClassVar[bool] = True
    grows: ClassVar[bool] = False
    passes: ClassVar[float] = 0.0
    on_target: ClassVar[bool] = False
    one_surrogate: ClassVar[bool] = False
    quick: ClassVar[Mapping[str, Scalar]] = {}

    @property
    def limit(self) -> Budget | None:
        """The budget of this instance; None if it does not perturb."""
        return getattr(self, "budget", None)

    def limit_at(self, side: int) -> Budget:
        """The budget for images of `side` pixels; only for attacks that perturb."""
        limit = self.limit
        assert limit is not None, f"{self.id} has no budget"
        if self.grows and limit == type(self).__dataclass_fields__["budget"].default:
            return Budget(limit.norm, limit.value * side / 32)
        return limit

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit.norm not in self.norms:
            allowed = ", ".join(self.norms)
            raise SpecError(f"budget {self.limit} is {self.limit.norm}; {self.id} takes {allowed}")

    def needs(self) -> tuple[SurrogateRecipe, ...]:
        """The surrogates to be trained before this attack can start."""
        return ()

    @property
    def extractors(self) -> tuple[str, ...]:
        """Architectures of the pre-trained extractors in `Craft.surrogates`, by their names."""
        return ()

    @abstractmethod
    def propose(self, images: Images, craft: Craft) -> Tensor:
        """Make the perturbation for the rows of `craft`.

        images: the whole clean training set. Returns for each row either a float32 perturbation
        (n, C, H, W) in [-1, 1], or final uint8 pixels (n, C, H, W).
        """

    def pixels(self, images: Images, craft: Craft) -> Tensor:
        """Final uint8 pixels (n, C, H, W) for the rows of `craft`, within the budget."""
        index = craft.index(images)
        clean = images.pixels[index]
        if self.limit is None or self.limit.value == 0:
            return clean
        limit = self.limit_at(images.shape[-1])
        return enforce(clean, self.propose(images, craft).cpu(), limit)

    def poison(self, images: Images, craft: Craft) -> Poison:
        """The poison for all rows of `craft`. Targeted attacks override this."""
        index = craft.index(images)
        return Poison(index, self.pixels(images, craft), images.labels[index])

    def skip(self, cell: Cell) -> str | None:
        return None


ATTACKS: Registry[Attack] = Registry("attack", Attack)  # type: ignore[type-abstract]


def enforce(clean: Tensor, proposed: Tensor, budget: Budget) -> Tensor:
    """Final pixels that hold the budget after rounding.

    clean: uint8 (n, C, H, W). proposed: float perturbation or uint8 pixels of the same shape.
    linf is exact in whole levels; l2 within the rounding bound 0.5 * sqrt(CHW) / 255; l0 exact
    (a proposal that changes more pixels raises SpecError, there is no nearest legal one).
    """
    step = max(1, _CHUNK // max(1, math.prod(clean.shape[1:])))
    pieces = zip(clean.split(step), proposed.split(step), strict=True)
    return torch.cat([_hold(c, p, budget) for c, p in pieces])


def _hold(clean: Tensor, proposed: Tensor, budget: Budget) -> Tensor:
    out = proposed if proposed.dtype == torch.uint8 else _add(clean, proposed, budget)
    if budget.norm == "linf":
        change = out.short() - clean.short()
        return (clean.short() + change.clamp_(-budget.levels, budget.levels)).to(torch.uint8)
    if budget.norm == "l0" and int(measure(clean, out, "l0").max()) > budget.value:
        worst = int(measure(clean, out, "l0").max())
        raise SpecError(f"an image changed in {worst} pixels, the budget is {budget}")
    return out


def _add(clean: Tensor, delta: Tensor, budget: Budget) -> Tensor:
    if not bool(torch.isfinite(delta).all()):
        raise SpecError("the attack proposed a perturbation that is not finite")
    if budget.norm == "l2":
        length = delta.flatten(1).norm(dim=1).clamp_min(1e-12)
        delta = delta * (budget.value / length).clamp_max(1.0).view(-1, 1, 1, 1)
    return to_uint8(clean.float().div_(255).add_(delta))


def measure(clean: Tensor, poisoned: Tensor, norm: str) -> Tensor:
    """Size of the change of each image, float32 (n,): linf and l2 in [0, 1] units, l0 in pixels."""
    change = (poisoned.short() - clean.short()).float()
    if norm == "linf":
        return change.flatten(1).abs().amax(1) / 255
    if norm == "l2":
        return change.flatten(1).norm(dim=1) / 255
    return (change != 0).any(1).flatten(1).sum(1).float()
