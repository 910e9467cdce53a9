"""EntF: entangled features, by pushing images off their class or pulling them to another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from raygrid.attacks.base import ATTACKS, AttackContext
from raygrid.attacks.common.features import mean_features
from raygrid.attacks.common.gradient import in_batches
from raygrid.attacks.common.surrogates import SurrogateRecipe
from raygrid.attacks.common.transfer import TransferAttack
from raygrid.core.images import Images
from raygrid.core.lazy import torch
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card, require
from raygrid.nn.recipes import Recipe

if TYPE_CHECKING:
    from torch import Tensor

    from raygrid.architectures.networks.network import Network


@ATTACKS.register("entf")
@dataclass(frozen=True, kw_only=True)
class EntF(TransferAttack):
    """Moves images in the features of an adversarially trained network, by signed steps.

    m_c is the mean feature of class c over the clean images. push: raises the mean squared distance
    to the own class's m_y. pull: lowers the one to the nearest m_c of all others, chosen anew in
    every step; the own class counts as being at distance 1. Starts at budget * clip(N(0, 1), -1, 1)
    and sees the images shifted and flipped at random.
    """

    card = Card(
        paper="Wen et al. 2023, Is Adversarial Training Really a Silver Bullet for Mitigating "
        "Data Poisoning?",
        code="WenRuiUSTC/EntF@f2230b5 (train_reference_model.py, get_centroid.py, village/shop)",
        needs="labels; a surrogate adversarially trained on the clean set",
        cost="600 forward passes per image, and a surrogate of 100 epochs with ten adversarial "
        "steps each",
        notes="made against adversarial training, weak against plain training by design; the "
        "abstract prints a drop of 13.31 points under it at 8/255, the tables were not read. Where "
        "all other classes are further than 1, `pull` pulls an image to its own class, as in the "
        "code",
    )
    quick: ClassVar[Mapping[str, Scalar]] = {
        "surrogate": "small_cnn",
        "surrogate_epochs": 8,
        "batch_size": 128,
        "steps": 12,
        "step": 0.2,
    }
    tiny: ClassVar[Mapping[str, Scalar]] = {
        **TransferAttack.tiny,
        "surrogate_epochs": 1,
        "step": 0.2,
    }

    variant: Literal["push", "pull"] = "push"
    steps: int = 300
    start: Literal["zero", "uniform", "normal"] = "normal"
    augmentation: Literal["none", "affine_shift", "crop_flip"] = "affine_shift"
    surrogate_epochs: int = 100
    robust_radius: float = 4 / 255  # that the surrogate is trained against

    def __post_init__(self) -> None:
        super().__post_init__()
        radius = self.robust_radius
        require(0 <= radius <= 1, f"robust_radius is {radius}, allowed are 0 to 1")

    @property
    def recipe(self) -> SurrogateRecipe:
        epochs = self.surrogate_epochs
        falls = tuple(max(1, round(epochs * share)) for share in (0.75, 0.9))
        recipe = Recipe(epochs=epochs, schedule="step", milestones=falls)
        return SurrogateRecipe(
            "entf100", self.surrogate, recipe, radius=self.robust_radius, climb=(10, 0.5)
        )

    def passes(self, n: int) -> float:
        return super().passes(n) + 1

    def propose(self, images: Images, context: AttackContext) -> Tensor:
        network: Network = context.surrogates[self.recipe.name]  # type: ignore[assignment]
        means = mean_features(network, images, self.batch_size, context.device)

        def make(x: Tensor, rows: Tensor) -> Tensor:
            labels = images.labels[rows].to(x.device)
            seen = self.seen(network, rows, context)

            def losses(z: Tensor, step: int) -> Tensor:
                return self.distances(network.features(seen(z, step)), labels, means)

            return self.descent(x, x + self.first(x, rows, context), losses)[0]

        return in_batches(images, context, self.batch_size, make)

    def distances(self, features: Tensor, labels: Tensor, means: Tensor) -> Tensor:
        """What is lowered: the distance to the class that pulls, or minus the own one; (n,)."""
        if self.variant == "push":
            return -(features - means[labels]).square().mean(1)
        with torch.no_grad():
            apart = (features[:, None] - means[None]).square().mean(2)
            apart[torch.arange(len(labels)), labels] = 1.0
            nearest = apart.argmin(1)
        return (features - means[nearest]).square().mean(1)
