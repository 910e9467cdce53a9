"""TUE: transferable unlearnable examples, noise whose classes lie apart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from raygrid.attacks.base import ATTACKS, AttackContext
from raygrid.attacks.common.free_noise import OvershootNoise, cut_off
from raygrid.attacks.common.gradient import GradientAttack
from raygrid.attacks.common.noise import NoisyBatch, SampleNoise, uniform_start
from raygrid.attacks.common.rounds import alternate
from raygrid.attacks.common.students import (
    Student,
    contrastive_loss,
    fresh,
    training,
    whole_batches,
)
from raygrid.core.images import Images
from raygrid.core.lazy import nn, torch
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card, Combination, require
from raygrid.core.seeds import forked
from raygrid.nn.augment import SharedViews, Views
from raygrid.nn.pgd import Descent
from raygrid.nn.recipes import Recipe

if TYPE_CHECKING:
    from torch import Tensor

    from raygrid.architectures.networks.network import Network
    from raygrid.nn.contrastive.base import Framework


def separability(delta: Tensor, labels: Tensor, detach: bool) -> Tensor:
    """Class-wise separability discriminant of noise (n, C, H, W), a scalar; small is far apart.

    Mean over ordered pairs of present classes k != l of (s_k + s_l) / |c_k - c_l|, c_k the mean
    noise of a class and s_k the mean distance to it (both + 1e-5); 0 with fewer than two classes.
    detach: no gradient through s_k, as in the authors' code.
    """
    present, member = labels.unique(return_inverse=True)
    if len(present) < 2:
        return (delta * 0).sum()
    flat = delta.flatten(1)
    share = nn.functional.one_hot(member, len(present)).T.to(flat.dtype)
    share = share / share.sum(1, keepdim=True)
    centers = share @ flat
    away = (flat - centers[member]).square().sum(1)
    spread = share @ (away + 1e-20).sqrt()
    spread = spread.detach() if detach else spread
    first, second = torch.triu_indices(len(present), len(present), 1, device=delta.device)
    apart = (centers[first] - centers[second]).norm(dim=1)
    return ((spread[first] + spread[second] + 1e-5) / (apart + 1e-5)).mean()


def passes_of(per_epoch: int, train_batches: int) -> int:
    """Noise passes of an epoch: after every `train_batches` batches and once at its end.

    The code finds out that an epoch is over when it asks for the next batch, so that there is a
    pass at the end even where one was just made.
    """
    return per_epoch // train_batches + 1


@dataclass
class EpochStudent(Student):
    """A student whose rounds end with its epochs. per_epoch: batches of one."""

    per_epoch: int = 1

    def batches_of(self, round_: int, size: int) -> tuple[int, int]:
        epoch, part = divmod(round_, passes_of(self.per_epoch, size))
        return epoch * self.per_epoch + part * size, min(size, self.per_epoch - part * size)


@dataclass(frozen=True)
class _Plan:
    """What the code's commands set for one framework; numbers of the row in their README."""

    epochs: int
    train_batches: int
    steps: int
    csd: float
    recipe: Recipe


_PLANS = {
    "simclr": _Plan(
        40, 20, 20, 0.1, Recipe(epochs=1, lr=1e-3, optimizer="adam", weight_decay=1e-6)
    ),
    "moco": _Plan(200, 100, 5, 1.0, Recipe(epochs=1, lr=0.3, weight_decay=1e-4)),
    "simsiam": _Plan(50, 25, 20, 0.1, Recipe(epochs=1, lr=0.06, weight_decay=5e-4)),
}


@ATTACKS.register("tue")
@dataclass(frozen=True, kw_only=True)
class Tue(GradientAttack):
    """Lowers `ssl` * contrastive loss + `csd` * class-wise separability of the noise itself.

    A framework learns on two views of images + noise; after every `train_batches` of its batches
    and at the end of each epoch the noise takes `steps` steps for every batch of the training set,
    whose keys enter MoCo's queue; all images of such a batch are seen through the same two views.
    Networks of MoCo have batch statistics of `splits` parts of a batch. With `ssl` 0, as in the
    authors' commands for SimCLR and SimSiam, no network takes part and none is trained.
    """

    card = Card(
        paper="Ren et al. 2023, Transferable Unlearnable Examples",
        code="renjie3/TUE@6b3752b",
        published={
            "cifar10/tue/standard/resnet18/supervised/tp/0": 0.2937,
            "cifar10/tue/standard/resnet18/supcl/tp/0": 0.8422,
            "cifar10/tue/standard/resnet18/simclr/tp/0": 0.4746,
            "cifar10/tue/standard/resnet18/byol/tp/0": 0.8831,
            "cifar10/tue/standard/resnet18/moco/tp/0": 0.8302,
            "cifar10/tue/standard/resnet18/simsiam/tp/0": 0.4696,
            "cifar100/tue/standard/resnet18/supervised/tp/0": 0.0134,
        },
        needs="labels",
        cost="seconds with ssl=0 (the default for SimCLR); with ssl=1 about 12,000 forward passes "
        "per image",
        notes="the paper describes a joint objective (ssl=1), the published commands switch the "
        "contrastive loss off; generation times in Liu et al. fit the commands. From version 3 on "
        "all images of a batch share one augmentation while the noise is made, MoCo has batch "
        "statistics of eighths of a batch, SimCLR of each view alone, and noise may leave the "
        "pixel range by its last step, all as in the code. Each command makes 200 noise passes, as "
        "here from version 2 on (194 before). MoCo's noise passes leave out the last incomplete "
        "batch in the code, here no image; with ssl=1 SimSiam's network makes noise in training "
        "mode there, in eval mode here. Where the network learns, resized crops sample by "
        "half-pixel centers as torchvision does, in the code by kornia's aligned corners",
    )
    quick: ClassVar[Mapping[str, Scalar]] = {
        "surrogate": "small_cnn",
        "batch_size": 128,
        "epochs": 4,
        "train_batches": 33,
        "steps": 10,
        "flip": False,
    }
    tiny: ClassVar[Mapping[str, Scalar]] = {
        "surrogate": "small_cnn",
        "batch_size": 16,
        "epochs": 2,
        "ssl": 1.0,
        "train_batches": 2,
        "steps": 2,
    }

    version: ClassVar[int] = 3
    effort: ClassVar[frozenset[str]] = GradientAttack.effort | {
        "epochs",
        "step",
        "steps",
        "train_batches",
    }
    holds: ClassVar[float] = 5.0

    framework: Literal["simclr", "moco", "simsiam"] = "simclr"
    ssl: float | None = None  # weight of the contrastive loss; 0, MoCo 1
    csd: float | None = None  # weight of the separability; 0.1, MoCo 1
    epochs: int | None = None  # 40, MoCo 200, SimSiam 50
    train_batches: int | None = None  # network batches before a noise pass; 20, 100, 25
    steps: int | None = None  # per batch and pass; 20, MoCo 5
    step: float = 0.1  # of the budget
    detach: bool = True  # no gradient through the spread within classes, as in the code
    queue: int = 4096  # of MoCo, keys
    splits: int = 8  # parts of a batch with statistics of their own in MoCo's networks
    flip: bool = True  # whether views may be mirrored

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("ssl", "csd"):
            value = getattr(self, name)
            require(value is None or value >= 0, f"{name} is {value}, allowed are numbers from 0")
        for name in ("epochs", "train_batches", "steps"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name} is {value}, allowed from 1")
        require(self.step > 0, f"step is {self.step}, allowed are positive shares of the budget")
        require(self.queue >= 1, f"queue is {self.queue}, allowed are whole numbers from 1")
        require(self.splits >= 1, f"splits is {self.splits}, allowed are whole numbers from 1")
        if self.framework == "moco":
            whole_batches(self.queue, self.batch_size)
            said = f"batch_size is {self.batch_size}, allowed are multiples of splits={self.splits}"
            require(self.batch_size % self.splits == 0, said)

    def skip(self, combination: Combination) -> str | None:
        """Where there are fewer images than a batch has, all of them are one."""
        size = min(self.batch_size, combination.train_size)
        if self.framework == "moco" and size % self.splits:
            return f"{self.id}: a batch of {size} images has no splits={self.splits} equal parts"
        return super().skip(combination)

    def passes(self, n: int) -> float:
        """Without the contrastive loss no network is asked."""
        plan = self.plan
        if not self.ssl_weight:
            return 0.0
        return 2 * (3.0 * plan.epochs + 2 * plan.steps * self.rounds(n))

    def rounds(self, n: int) -> int:
        """Noise passes over `n` images."""
        return self.plan.epochs * passes_of(self.per_epoch(n), self.plan.train_batches)

    def per_epoch(self, n: int) -> int:
        """Batches of an epoch of training."""
        return max(1, n // self.batch_size) if self.drops(n) else math.ceil(n / self.batch_size)

    def drops(self, n: int) -> bool:
        """Whether the last batch is left out; one of a single image has no batch statistics."""
        return self.framework == "moco" or n % self.batch_size == 1

    @property
    def plan(self) -> _Plan:
        """Epochs, network batches, noise steps and weight of the separability."""
        usual = _PLANS[self.framework]
        return _Plan(
            usual.epochs if self.epochs is None else self.epochs,
            usual.train_batches if self.train_batches is None else self.train_batches,
            usual.steps if self.steps is None else self.steps,
            usual.csd if self.csd is None else self.csd,
            usual.recipe.with_(batch_size=self.batch_size, schedule="constant", precision="fp32"),
        )

    @property
    def ssl_weight(self) -> float:
        """Weight of the contrastive loss."""
        if self.ssl is None:
            return 1.0 if self.framework == "moco" else 0.0
        return self.ssl

    def propose(self, images: Images, context: AttackContext) -> Tensor:
        start = torch.zeros(len(images), *images.shape, device=context.device)
        if self.framework != "moco":
            start = uniform_start(len(images), images, self.radius, context)
        noise = OvershootNoise(images.to(context.device), start)
        student = self.student(noise, context)
        return alternate(noise, [student], self.rounds(len(images)), self.batch_size, context)

    def student(self, noise: SampleNoise, context: AttackContext) -> Student:
        """The framework, if it takes part, and what the noise lowers."""
        plan, weight = self.plan, self.ssl_weight
        descent = Descent(self.radius, self.step * self.radius, plan.steps)

        def apart(shown: NoisyBatch) -> Tensor:
            return plan.csd * separability(shown.z - shown.x, shown.y, self.detach)

        if weight == 0:
            return Student("csd", nn.Identity(), apart, descent)
        network = fresh(self.surrogate, noise.images, context, fan_out=True)
        with forked(context.stream.seed("heads")):
            model = self.model(network).to(context.device)
        scale = (0.08, 1.0)
        views, shared = Views(scale, flip=self.flip), SharedViews(scale, flip=self.flip)

        def objective(shown: NoisyBatch) -> Tensor:
            seen = replace(shown, z=cut_off(shown.z))
            agreement = contrastive_loss(model, shared, seen, move=False, dual=True)
            return weight * agreement + apart(shown)

        loss = partial(contrastive_loss, model, views)
        n = len(noise.images)
        recipe = plan.recipe.with_(drop_last=self.drops(n))
        trainer = training("ssl", model, loss, noise, recipe, context)
        per_epoch = self.per_epoch(n)
        return EpochStudent(
            "ssl", model, objective, descent, trainer, plan.train_batches, per_epoch=per_epoch
        )

    def model(self, network: Network) -> Framework:
        """The framework with the heads of its code; draws weights from the global stream."""
        from raygrid.architectures.networks.ghost_norm import ghost_norms
        from raygrid.nn.contrastive.base import Branch
        from raygrid.nn.contrastive.moco import MocoLoss
        from raygrid.nn.contrastive.pairs import SimClrLoss
        from raygrid.nn.contrastive.simsiam import SimSiamLoss, simsiam_heads

        if self.framework == "simsiam":
            return SimSiamLoss(*simsiam_heads(network, "fp32"))
        if self.framework == "moco":
            if self.splits > 1:
                ghost_norms(network, self.splits)
            branch = Branch(network, nn.Linear(network.width, 128), "fp32")
            return MocoLoss(branch, (self.queue, 128), 0.99, 0.2, "none", eager=True)
        from lightly.models.modules.heads import ProjectionHead

        first = (network.width, 512, nn.BatchNorm1d(512), nn.ReLU())
        branch = Branch(network, ProjectionHead([first, (512, 128, None, None)]), "fp32")
        return SimClrLoss(branch, 0.5, "none", joint=False)
