"""What attacks by D-VAE share: another attack's poison, and a D-VAE that finds it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from raygrid.attacks.base import ATTACKS, Attack, AttackContext
from raygrid.attacks.common.surrogates import SurrogateRecipe
from raygrid.core.budget import Budget
from raygrid.core.images import Images
from raygrid.core.literals import Scalar, parse_scalar
from raygrid.core.registry import Combination, require
from raygrid.core.spec import Part
from raygrid.nn.context import FitContext
from raygrid.nn.vae import LatentTable, VaeFit, VaeSize, fit, misfit, relative_cost, require_fit

if TYPE_CHECKING:
    from torch import Tensor

    from raygrid.nn.vae.networks import AutoEncoder


@dataclass(frozen=True, kw_only=True)
class Disentangled(Attack):
    """Fits a D-VAE to a poison and puts the perturbations that it finds on clean images.

    Nothing bounds what the network finds; the budget is there for who wants to.
    grown: whether some images are those of the base attack.
    """

    grown: ClassVar[bool] = False
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l0")
    quick: ClassVar[Mapping[str, Scalar]] = {
        "base_quick": True,
        "epochs": 4,
        "batch_size": 32,
        "shrink": 4,
    }
    effort: ClassVar[frozenset[str]] = frozenset({"base_quick", "batch_size", "epochs", "shrink"})

    budget: Budget = Budget("linf", 1.0)  # by default as the network finds it
    base: str = "em"  # attack whose poison is taken
    base_budget: str = ""  # its budget, e.g. 16/255 or l2:1.7; empty: its own
    base_quick: bool = False  # whether it is made with its parameters for a small network
    rate: float = 1.0  # most nats for each position of the D-VAE's latent
    epochs: int = 60  # of the D-VAE
    batch_size: int = 128  # images an update of it
    table: LatentTable = "spatial"  # a map or a vector for each class
    shrink: int = 1  # divides the D-VAE's channels, for small machines

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.rate >= 0, f"rate is {self.rate}, allowed are numbers from 0")
        require_fit(self.epochs, self.batch_size, self.shrink)
        perturbs = self.attack.limit is not None and not isinstance(self.attack, Disentangled)
        require(perturbs, f"base is {self.base}, allowed are attacks that perturb by themselves")

    @property
    def attack(self) -> Attack:
        """The base attack; raises SpecError if there is none of the name or with the budget."""
        small = self.base_quick and self.base in ATTACKS
        params = dict(ATTACKS[self.base].quick) if small else {}
        if self.base_budget:
            params["budget"] = parse_scalar(self.base_budget)
        return ATTACKS.make(Part.of(self.base, **params))

    @property
    def base_attack(self) -> Attack:
        return self.attack

    def resolved(self) -> dict[str, Any]:
        made = {"base": self.attack.resolved(), "base_budget": "", "base_quick": False}
        return {**super().resolved(), **made}

    def needs(self) -> tuple[SurrogateRecipe, ...]:
        return self.attack.needs()

    def passes(self, n: int) -> float:
        """A forward and a full backward pass an epoch, each about one through a ResNet-18."""
        return 3.0 * self.epochs * relative_cost(self.shrink)

    def draws(self, side: int) -> float:
        # How many classes there are does not matter: their branch draws nothing.
        plan = VaeSize.disentangling(side, 1, self.table, shrink=self.shrink)
        return float(self.epochs * plan.drawn)

    def original(self, images: Images, context: AttackContext) -> Images:
        """The whole training set under the base attack: what a grid has under its name."""
        if context.base is not None:
            return context.base
        axes = (self.attack.id if axis == self.id else axis for axis in context.stream.depends)
        stream = replace(context.stream, depends=tuple(axes))
        return images.with_pixels(self.attack.pixels(images, replace(context, stream=stream)))

    def network(self, images: Images, fit_context: FitContext, repeats: int = 1) -> AutoEncoder:
        """A D-VAE of stage 1 fitted to the images, for `repeats` times the epochs."""
        side, classes = images.shape[-1], images.classes
        plan = VaeSize.disentangling(side, classes, self.table, shrink=self.shrink)
        how = VaeFit(plan, self.rate, self.epochs * repeats, 11 * repeats, self.batch_size)
        return fit(how, images, fit_context)

    def intended(self, labels: Tensor, classes: int) -> Tensor | None:
        """That of the base attack, whose perturbations are found again."""
        return self.attack.intended(labels, classes)

    def fit_context(self, context: AttackContext) -> FitContext:
        return FitContext(context.stream.child("dvae"), context.device)

    def skip(self, combination: Combination) -> str | None:
        return self.attack.skip(combination) or misfit(self.id, combination.image_size)
