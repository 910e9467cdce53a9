"""PIL: perturbation-induced linearization, noise that a linear classifier reads by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from raygrid.attacks.base import ATTACKS, AttackContext
from raygrid.attacks.common.gradient import GradientAttack, in_batches
from raygrid.attacks.common.surrogates import SurrogateRecipe
from raygrid.core.images import Images
from raygrid.core.lazy import nn, torch
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card, require
from raygrid.nn.pgd import Descent, Objective
from raygrid.nn.recipes import Recipe

if TYPE_CHECKING:
    from torch import Tensor


@ATTACKS.register("pil")
@dataclass(frozen=True, kw_only=True)
class Pil(GradientAttack):
    """Noise d that a linear classifier f of clean images calls y, and takes from x what f sees.

    Descends weight * CE(f(d), y) + (1 - weight) * KL(u || softmax f(x - d)), u uniform over the
    classes, by signed steps within the budget from uniform noise. The poison is x - d.
    """

    card = Card(
        paper="Liu, Chen and Zhang 2026, Perturbation-Induced Linearization",
        code="jinlinll/pil@50a2803 (attacks.py, main.py, models/linearmodel.py, trainer.py)",
        published={
            f"{dataset}/pil/standard/resnet18/supervised/pil/0": accuracy
            for dataset, accuracy in (
                ("svhn", 0.1594),
                ("cifar10", 0.1277),
                ("cifar100", 0.0211),
                ("imagenet100", 0.0226),
            )
        },
        needs="labels; a linear surrogate trained on the clean set",
        cost="120 passes through a matrix of all pixels per image: a minute on a CPU core",
        notes="the surrogate is the product of two matrices, whose training is not that of one "
        "(`surrogate=linear`), in batches of 512 in file order there, in one drawn order here; "
        "sets of fewer than 17,000 images are cut into smaller batches. Victims of the code see "
        "pixels cut off to whole levels, here they are rounded",
    )
    tiny: ClassVar[Mapping[str, Scalar]] = {"surrogate_epochs": 2, "batch_size": 16, "steps": 3}
    sharded: ClassVar[bool] = True
    effort: ClassVar[frozenset[str]] = GradientAttack.effort | {"step", "steps", "surrogate_epochs"}

    surrogate: str = "linear_product"
    surrogate_epochs: int = 30
    steps: int = 30
    step: float = 0.1  # of the budget
    weight: float = 0.9  # of the noise's own loss

    def __post_init__(self) -> None:
        super().__post_init__()
        epochs = self.surrogate_epochs
        require(epochs >= 1, f"surrogate_epochs is {epochs}, allowed are whole numbers from 1")
        require(self.steps >= 1, f"steps is {self.steps}, allowed are whole numbers from 1")
        require(self.step > 0, f"step is {self.step}, allowed are positive shares of the budget")
        require(0 <= self.weight <= 1, f"weight is {self.weight}, allowed are 0 to 1")

    def passes(self, n: int) -> float:
        return 4.0 * self.steps

    @property
    def recipe(self) -> SurrogateRecipe:
        recipe = Recipe(
            epochs=self.surrogate_epochs,
            batch_size=512,
            lr=0.003,
            weight_decay=0.0,
            shuffle=False,
            precision="fp32",
            min_steps=1000,
        )
        return SurrogateRecipe("pil30", self.surrogate, recipe, "none")

    def needs(self) -> tuple[SurrogateRecipe, ...]:
        return (self.recipe,)

    def propose(self, images: Images, context: AttackContext) -> Tensor:
        network = context.surrogates[self.recipe.name]
        descent = Descent(self.radius, self.step * self.radius, self.steps, box=False)

        def make(x: Tensor, rows: Tensor) -> Tensor:
            labels = images.labels[rows].to(x.device)
            draws = context.stream.rows("start", rows, tuple(x.shape[1:]), "uniform")
            start = (draws.to(x.device) * 2 - 1) * self.radius
            around = torch.zeros_like(x)
            return -descent(around, start, self.objective(network, x, labels))[0]

        return in_batches(images, context, self.batch_size, make)

    def objective(self, network: nn.Module, x: Tensor, labels: Tensor) -> Objective:
        """What noise for the images x is lowered in."""

        def losses(noise: Tensor, step: int) -> Tensor:
            own = nn.functional.cross_entropy(network(noise), labels, reduction="none")
            scores = network(x - noise).log_softmax(1)
            uniform = -scores.mean(1) - torch.tensor(float(scores.shape[1])).log()
            return self.weight * own + (1 - self.weight) * uniform

        return losses
