"""TP: transferable poisoning, noise for supervised and contrastive learning at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from raygrid.attacks.base import ATTACKS, AttackContext
from raygrid.attacks.common.gradient import GradientAttack, next_class
from raygrid.attacks.common.noise import NoisyBatch, SampleNoise, uniform_start
from raygrid.attacks.common.rounds import Stages, alternate
from raygrid.attacks.common.students import Student, contrastive_loss, fresh, training
from raygrid.attacks.common.surrogates import SurrogateRecipe
from raygrid.core.images import Images
from raygrid.core.lazy import nn
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card, require
from raygrid.core.seeds import forked
from raygrid.nn.augment import CropFlip, Views
from raygrid.nn.pgd import Descent
from raygrid.nn.recipes import Recipe

if TYPE_CHECKING:
    from torch import Tensor

    from raygrid.architectures.networks.network import Network

_LEARNERS = ("supervised", "supcl", "simclr", "byol", "moco", "simsiam")


def _published(attack: str, *accuracies: float, dataset: str = "cifar10") -> dict[str, float]:
    where = f"{dataset}/{attack}/standard/resnet18/{{}}/tp/0"
    return {where.format(le): acc for le, acc in zip(_LEARNERS, accuracies, strict=True)}


@ATTACKS.register("tp")
@dataclass(frozen=True, kw_only=True)
class Tp(GradientAttack):
    """One noise and one encoder with two last layers, trained in turns.

    Each epoch: (1) the encoder and a projection learn alignment and uniformity on two views of
    images + noise; (2) the noise takes `cl_steps` steps a batch that lower it; (3) the encoder
    and a classifier learn cross-entropy on images + noise; (4) the noise takes `sl_steps` steps
    that lower it. Each half has its own SGD with its own momentum. Starts at uniform noise.

    `variant`, the paper's alternatives: `two_models`: an encoder for each half; `tap_based`: for
    (3) and (4) a frozen network trained on the clean set, whose loss of the next class is
    lowered; `hf`: noise of either half made alone at half the budget, added; `cc`: the same at
    the whole budget, added and clipped.
    """

    card = Card(
        paper="Liu et al., Transferable Availability Poisoning Attacks, algorithm 1 and A.2",
        code="none public for this version (TrustMLRG/TransPoison@2d08a9c is an earlier one)",
        published={
            **_published("tp", 0.3734, 0.4172, 0.3543, 0.3861, 0.3098, 0.1558),
            **_published("tp", 0.0954, 0.1425, 0.1481, 0.1651, 0.1537, 0.1525, dataset="cifar100"),
            **_published("tp(variant=hf)", 0.1600, 0.9212, 0.6368, 0.9165, 0.8375, 0.6347),
            **_published("tp(variant=cc)", 0.1650, 0.9027, 0.4731, 0.8906, 0.4116, 0.4331),
            **_published("tp(variant=two_models)", 0.1773, 0.8411, 0.5048, 0.5816, 0.4736, 0.5119),
            **_published("tp(variant=tap_based)", 0.0597, 0.3200, 0.5652, 0.5587, 0.4117, 0.4828),
        },
        needs="labels; for tap_based a surrogate trained on the clean set",
        cost="300 epochs of 39 forward passes per image; 3 steps in each half cost 69 % of that "
        "at the same worst case",
        notes="equation 2 is misprinted: the uniformity term as printed is constant, it must be "
        "that of pairs. Open in the paper, ours: batch 512, uniform start, constant rates, a "
        "linear projection to 128, nothing done to the images of the supervised half. Convolutions "
        "start from torchvision's rule from version 2 on, as in the earlier version's code, whose "
        "resized crops sample by kornia's aligned corners, here by half-pixel centers",
    )
    version: ClassVar[int] = 2
    holds: ClassVar[float] = 5.0
    quick: ClassVar[Mapping[str, Scalar]] = {
        "surrogate": "small_cnn",
        "batch_size": 128,
        "epochs": 5,
        "step": 0.2,
        "cl_lr": 0.1,
        "surrogate_epochs": 6,
        "flip": False,
    }
    tiny: ClassVar[Mapping[str, Scalar]] = {
        "surrogate": "small_cnn",
        "batch_size": 16,
        "epochs": 2,
        "cl_steps": 1,
        "sl_steps": 1,
    }
    effort: ClassVar[frozenset[str]] = GradientAttack.effort | {
        "cl_lr",
        "epochs",
        "sl_lr",
        "step",
        "surrogate_epochs",
    }

    variant: Literal["shared", "two_models", "tap_based", "hf", "cc"] = "shared"
    epochs: int = 300
    cl_steps: int = 5  # noise steps per batch, contrastive half
    sl_steps: int = 5  # noise steps per batch, supervised half
    step: float = 0.1  # of the budget
    align: float = 1.0  # weight of alignment
    uniform: float = 1.0  # weight of uniformity
    cl_lr: float = 0.5
    sl_lr: float = 0.1
    projection: Literal["linear", "mlp"] = "linear"  # to 128; mlp: 512 hidden units
    sl_augmentation: Literal["none", "crop_flip"] = "none"
    surrogate_epochs: int = 40  # of tap_based's network
    flip: bool = True  # whether views may be mirrored

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("epochs", "surrogate_epochs"):
            value = getattr(self, name)
            require(value >= 1, f"{name} is {value}, allowed are whole numbers from 1")
        for name in ("cl_steps", "sl_steps"):
            value = getattr(self, name)
            require(value >= 0, f"{name} is {value}, allowed are whole numbers from 0")
        for name in ("step", "cl_lr", "sl_lr"):
            value = getattr(self, name)
            require(value > 0, f"{name} is {value}, allowed are positive numbers")
        for name in ("align", "uniform"):
            value = getattr(self, name)
            require(value >= 0, f"{name} is {value}, allowed are numbers from 0")

    def passes(self, n: int) -> float:
        contrastive, supervised = 2 * (3.0 + 2 * self.cl_steps), 3.0 + 2 * self.sl_steps
        return self.epochs * (contrastive + supervised)

    def recipe(self, half: Literal["cl", "sl"]) -> Recipe:
        """The recipe of the network in a half."""
        lr, weight_decay = (self.cl_lr, 1e-4) if half == "cl" else (self.sl_lr, 5e-4)
        return Recipe(
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=lr,
            weight_decay=weight_decay,
            schedule="constant",
            drop_last=half == "cl",
            precision="fp32",
        )

    @property
    def clean_recipe(self) -> SurrogateRecipe:
        """The network of `tap_based`: 40 epochs at 0.1, as in the earlier version's code."""
        recipe = Recipe(epochs=self.surrogate_epochs, schedule="constant")
        return SurrogateRecipe("clean", self.surrogate, recipe)

    def needs(self) -> tuple[SurrogateRecipe, ...]:
        return (self.clean_recipe,) if self.variant == "tap_based" else ()

    def intended(self, labels: Tensor, classes: int) -> Tensor | None:
        return next_class(labels, classes) if self.variant == "tap_based" else None

    def propose(self, images: Images, context: AttackContext) -> Tensor:
        on_device = images.to(context.device)
        if self.variant not in ("hf", "cc"):
            return Crafting(self, on_device, context, self.radius).run(("cl", "sl"))
        radius = self.radius / 2 if self.variant == "hf" else self.radius
        stages = Stages(context, 2)

        def alone(half: str) -> Tensor:
            return stages.run(lambda part: Crafting(self, on_device, part, radius).run((half,)))

        return (alone("sl") + alone("cl")).clamp_(-self.radius, self.radius)


class Crafting:
    """The noise within `radius` and the students of one generation."""

    def __init__(self, attack: Tp, images: Images, context: AttackContext, radius: float) -> None:
        self.attack = attack
        self.images = images
        self.context = context
        self.radius = radius
        x = images.floats()
        start = uniform_start(len(images), images, radius, context)
        self.noise = SampleNoise(images, (x + start).clamp_(0, 1).sub_(x))
        self.network = fresh(attack.surrogate, images, context, fan_out=True)

    def run(self, halves: Sequence[str]) -> Tensor:
        """All epochs of these halves, `cl` and `sl`, in this order."""
        attack = self.attack
        students = [self.contrastive() if h == "cl" else self.supervised() for h in halves]
        return alternate(self.noise, students, attack.epochs, attack.batch_size, self.context)

    def descent(self, steps: int) -> Descent:
        return Descent(self.radius, self.attack.step * self.radius, steps)

    def contrastive(self) -> Student:
        from raygrid.nn.contrastive.base import Branch
        from raygrid.nn.contrastive.pairs import AlignUniform

        attack = self.attack
        with forked(self.context.stream.seed("projection")):
            branch = Branch(self.network, projection(attack.projection, self.network), "fp32")
        model = AlignUniform(branch, attack.align, attack.uniform).to(self.context.device)
        loss = partial(contrastive_loss, model, Views(flip=attack.flip))
        recipe = attack.recipe("cl")
        trainer = training("cl", model, loss, self.noise, recipe, self.context)
        return Student("cl", model, loss, self.descent(attack.cl_steps), trainer)

    def supervised(self) -> Student:
        attack, network = self.attack, self.supervised_network()
        crop = CropFlip(self.images.shape[-1] // 8, attack.flip)

        def loss(shown: NoisyBatch) -> Tensor:
            cropped = attack.sl_augmentation == "crop_flip"
            seen = crop(shown.z, shown.rng) if cropped else shown.z
            wanted = attack.intended(shown.y, self.images.classes)
            return nn.functional.cross_entropy(network(seen), shown.y if wanted is None else wanted)

        trainer = None
        if attack.variant != "tap_based":
            recipe = attack.recipe("sl")
            trainer = training("sl", network, loss, self.noise, recipe, self.context)
        return Student("sl", network, loss, self.descent(attack.sl_steps), trainer)

    def supervised_network(self) -> nn.Module:
        """The encoder of the contrastive half with its own last layer, unless the variant says."""
        attack = self.attack
        if attack.variant == "tap_based":
            return self.context.surrogates[attack.clean_recipe.name]
        if attack.variant == "two_models":
            return fresh(attack.surrogate, self.images, self.context, "supervised", fan_out=True)
        return self.network


def projection(kind: str, network: Network) -> nn.Module:
    """The way from features to 128 numbers: a linear layer, or 512 hidden units before it."""
    if kind == "linear":
        return nn.Linear(network.width, 128)
    return nn.Sequential(nn.Linear(network.width, 512), nn.ReLU(), nn.Linear(512, 128))
