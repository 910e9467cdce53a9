"""CP: contrastive poisoning, noise that makes a contrastive loss small."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from raygrid.attacks.base import ATTACKS, AttackContext
from raygrid.attacks.common.free_noise import LooseNoise
from raygrid.attacks.common.gradient import GradientAttack
from raygrid.attacks.common.noise import (
    ClassNoise,
    NoisyBatch,
    SampleNoise,
    uniform_start,
)
from raygrid.attacks.common.rounds import Stages, alternate
from raygrid.attacks.common.students import (
    Student,
    contrastive_loss,
    fresh,
    training,
    whole_batches,
)
from raygrid.core.images import Images, moments
from raygrid.core.lazy import torch
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card, require
from raygrid.core.seeds import forked
from raygrid.nn.augment import Views
from raygrid.nn.pgd import Descent
from raygrid.nn.recipes import Recipe

if TYPE_CHECKING:
    from torch import Tensor

    from raygrid.architectures.networks.network import Network
    from raygrid.nn.contrastive.base import Framework

_RATES = {"simclr": 0.5, "moco": 0.3, "byol": 1.0, "align_uniform": 0.5}


def within_images(pixels: Tensor) -> tuple[float, ...]:
    """Mean over images of each channel's sd within the image, of uint8 (N, C, H, W); in [0, 1].

    That of CIFAR-10 is (.2023, .1994, .2010), which many codes normalize by.
    """
    total = torch.zeros(pixels.shape[1], dtype=torch.float64)
    for part in pixels.split(1024):
        total += part.cpu().double().flatten(2).std(2, correction=0).sum(0)
    return tuple((total / (255 * len(pixels))).clamp(min=1e-6).tolist())


def _published(framework: str, *accuracies: float) -> dict[str, float]:
    learners = ("supervised", "supcl", "simclr", "byol", "moco", "simsiam")
    where = f"cifar10/cp(framework={framework})/standard/resnet18/{{}}/tp/0"
    return {where.format(le): acc for le, acc in zip(learners, accuracies, strict=True)}


@ATTACKS.register("cp")
@dataclass(frozen=True, kw_only=True)
class Cp(GradientAttack):
    """A framework learns on two views of images + noise, the noise descends the same loss.

    `mode=class`: `class_rounds` rounds of 20 batches for the network and 20 for the noise of each
    class. `mode=sample`: `epochs` epochs of a pass each, the noise of an image starting at that
    of its class (`start=class`, a class-wise generation first) or at uniform noise.
    """

    card = Card(
        paper="He et al. 2023, Indiscriminate Poisoning Attacks on Unsupervised Contrastive "
        "Learning; called UCL in APBench",
        code="kaiwenzha/contrastive-poisoning@628838c",
        published={
            **_published("simclr", 0.9380, 0.9421, 0.3870, 0.8734, 0.7868, 0.3906),
            **_published("byol", 0.9372, 0.9407, 0.4717, 0.5379, 0.3841, 0.3301),
            **_published("moco", 0.9346, 0.9394, 0.4487, 0.7281, 0.4483, 0.5018),
        },
        needs="labels for class-wise noise, which sample-wise noise starts from",
        cost="200 epochs of 2 views, 26 forward passes an image, and as many steps class-wise",
        notes="the code's dual branch does nothing for BYOL, since its loss detaches the target "
        "(`dual=false`); its slow branches also move while the noise is made (`slow=moving`). Its "
        "own figures for noise and victim of one kind, clean probe: 0.449 / 0.551 / 0.596. It "
        "normalizes CIFAR-10 by (.2023, .1994, .2010), the mean sd within an image, and CIFAR-100 "
        "by the sd of all pixels (input_sd=pixels). Batch statistics are here those of the whole "
        "batch, there of each GPU's share while noise is made. From version 2 on noise leaves the "
        "pixel range as in the code, and convolutions start from torchvision's rule. Resized crops "
        "sample by half-pixel centers as torchvision does, in the code by kornia's aligned "
        "corners. SimCLR's noise is that after 160 of 200 epochs, as the README there has it, from "
        "version 3 on; `framework=align_uniform` is this generation with TP's contrastive loss, "
        "not TP without its supervised half",
    )
    version: ClassVar[int] = 3
    holds: ClassVar[float] = 5.0
    quick: ClassVar[Mapping[str, Scalar]] = {
        "surrogate": "small_cnn",
        "batch_size": 128,
        "start": "uniform",
        "epochs": 5,
        "steps": 3,
        "step": 0.2,
        "lr": 0.1,
        "flip": False,
    }
    tiny: ClassVar[Mapping[str, Scalar]] = {
        "surrogate": "small_cnn",
        "batch_size": 16,
        "epochs": 2,
        "class_rounds": 2,
        "class_batches": 2,
        "steps": 2,
    }
    effort: ClassVar[frozenset[str]] = GradientAttack.effort | {
        "class_batches",
        "class_rounds",
        "epochs",
        "kept",
        "lr",
        "start",  # uniform noise spares the class-wise generation before
        "step",
        "steps",
    }

    framework: Literal["simclr", "moco", "byol", "align_uniform"] = "simclr"
    mode: Literal["sample", "class"] = "sample"
    start: Literal["class", "uniform"] = "class"  # of sample-wise noise
    epochs: int = 200
    kept: int | None = None  # epoch after which the noise is taken; last, SimCLR 4/5 of them
    class_rounds: int = 1000
    class_batches: int = 20  # of the network and of the noise in a class-wise round
    steps: int | None = None  # per batch, sample-wise; 5, for BYOL 1
    step: float | None = None  # of the budget; 0.1, for BYOL sample-wise 0.02
    lr: float | None = None  # 0.5, MoCo 0.3, BYOL 1
    queue: int = 4096  # of MoCo, keys
    momentum: float | None = None  # of the slow branch; MoCo 0.99, BYOL 0.999 twice a step
    dual: bool = True  # noise gradients pass through the slow branch too
    slow: Literal["frozen", "moving"] = "frozen"  # slow branch and queue while noise is made
    flip: bool = True  # whether views may be mirrored
    input_sd: Literal["images", "pixels"] = "images"  # within images, on average; over all pixels

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.epochs >= 1, f"epochs is {self.epochs}, allowed are whole numbers from 1")
        rounds, batches = self.class_rounds, self.class_batches
        require(
            1 <= self.kept_epoch <= self.epochs,
            f"kept is {self.kept}, allowed are whole numbers from 1 to epochs={self.epochs}",
        )
        require(rounds >= 1, f"class_rounds is {rounds}, allowed are whole numbers from 1")
        require(batches >= 1, f"class_batches is {batches}, allowed are whole numbers from 1")
        require(self.steps is None or self.steps >= 0, f"steps is {self.steps}, allowed from 0")
        require(self.step is None or self.step > 0, f"step is {self.step}, allowed: above 0")
        require(self.lr is None or self.lr > 0, f"lr is {self.lr}, allowed: above 0")
        share = self.momentum is None or 0 <= self.momentum <= 1
        require(share, f"momentum is {self.momentum}, allowed are 0 to 1")
        require(self.queue >= 1, f"queue is {self.queue}, allowed are whole numbers from 1")
        if self.framework == "moco":
            whole_batches(self.queue, self.batch_size)

    def passes(self, n: int) -> float:
        sample = self.kept_epoch * 2 * (3.0 + 2 * self.sample_steps)
        shown = self.class_rounds * self.class_batches * min(self.batch_size, n)
        class_wise = 2 * (3.0 + 2) * shown / n
        if self.mode == "class":
            return class_wise
        return sample + (class_wise if self.start == "class" else 0.0)

    @property
    def kept_epoch(self) -> int:
        """The epoch whose noise is the poison, sample-wise; the schedule is that of all epochs."""
        if self.kept is not None:
            return self.kept
        return max(1, self.epochs * 4 // 5) if self.framework == "simclr" else self.epochs

    @property
    def sample_steps(self) -> int:
        """Steps of sample-wise noise."""
        usual = 1 if self.framework == "byol" else 5
        return usual if self.steps is None else self.steps

    def moments(self, images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and sd of each channel, by which the network normalizes its input."""
        means, sds = moments(images.pixels)
        return means, sds if self.input_sd == "pixels" else within_images(images.pixels)

    def propose(self, images: Images, context: AttackContext) -> Tensor:
        on_device = images.to(context.device)
        if self.mode == "class":
            return self.class_wise(on_device, context)
        if self.start == "uniform":
            start = uniform_start(len(images), images, self.radius, context)
            return self.sample_wise(on_device, start, context)
        stages = Stages(context, 2)
        start = stages.run(lambda part: self.class_wise(on_device, part))
        start = start.to(context.device, copy=True)
        return stages.run(lambda part: self.sample_wise(on_device, start, part))

    def class_wise(self, images: Images, context: AttackContext) -> Tensor:
        """One noise for each class, given to its images (N, C, H, W)."""
        start = uniform_start(images.classes, images, self.radius, context)
        noise = ClassNoise(images, start)
        share = 0.1 if self.step is None else self.step
        descent = Descent(self.radius, share * self.radius, 1)
        student = self.student(images, noise, descent, self.class_rounds, context)
        student.model_batches = student.noise_batches = self.class_batches
        return alternate(noise, [student], self.class_rounds, self.batch_size, context)

    def sample_wise(self, images: Images, start: Tensor, context: AttackContext) -> Tensor:
        """Noise of every image from `start`, both (N, C, H, W)."""
        noise = LooseNoise(images, start)
        byol = self.framework == "byol"
        share = (0.02 if byol else 0.1) if self.step is None else self.step
        descent = Descent(self.radius, share * self.radius, self.sample_steps)
        student = self.student(images, noise, descent, self.epochs, context)
        return alternate(noise, [student], self.kept_epoch, self.batch_size, context)

    def student(
        self,
        images: Images,
        noise: SampleNoise,
        descent: Descent,
        rounds: int,
        context: AttackContext,
    ) -> Student:
        """A fresh framework that learns on two views of the noisy images."""
        network = fresh(self.surrogate, images, context, moments=self.moments(images), fan_out=True)
        with forked(context.stream.seed("heads")):
            model = self.model(network).to(context.device)
        views = Views(flip=self.flip)

        def objective(shown: NoisyBatch) -> Tensor:
            return contrastive_loss(model, views, shown, move=self.slow == "moving", dual=self.dual)

        lr = _RATES[self.framework] if self.lr is None else self.lr
        constant = self.framework == "align_uniform"
        recipe = Recipe(
            epochs=rounds,
            batch_size=self.batch_size,
            lr=lr,
            weight_decay=1e-4,
            schedule="constant" if constant else "cosine",
            lr_end=1e-3,
            drop_last=True,
            precision="fp32",
        )
        trainer = training(
            "cl", model, partial(contrastive_loss, model, views), noise, recipe, context
        )
        return Student("cl", model, objective, descent, trainer)

    def model(self, network: Network) -> Framework:
        """The framework with the heads of its code; draws weights from the global stream."""
        from raygrid.nn.contrastive.base import with_mlp
        from raygrid.nn.contrastive.byol import ByolLoss, byol_heads
        from raygrid.nn.contrastive.moco import MocoLoss
        from raygrid.nn.contrastive.pairs import AlignUniform, SimClrLoss

        if self.framework == "byol":
            momentum = 0.999 if self.momentum is None else self.momentum
            heads = byol_heads(network, "fp32")
            return ByolLoss(*heads, momentum, updates=2)
        branch = with_mlp(network, "fp32")
        if self.framework == "moco":
            momentum = 0.99 if self.momentum is None else self.momentum
            return MocoLoss(branch, (self.queue, 128), momentum, 0.2, "base007")
        if self.framework == "align_uniform":
            return AlignUniform(branch)
        return SimClrLoss(branch, 0.5, "base007")
