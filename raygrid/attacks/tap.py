"""TAP: targeted adversarial poisoning, adversarial examples with their true labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from raygrid.attacks.base import ATTACKS, AttackContext
from raygrid.attacks.common.surrogates import SurrogateRecipe
from raygrid.attacks.common.transfer import ErrorMaximizing, TransferAttack
from raygrid.core.images import Images
from raygrid.core.lazy import no_grad, torch
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card, require
from raygrid.nn.recipes import Recipe
from raygrid.storage.checkpoints import Progress

if TYPE_CHECKING:
    from torch import Tensor

_PAPER = "Fowl et al. 2021, Adversarial Examples Make Strong Poisons"


@ATTACKS.register("tap")
@dataclass(frozen=True, kw_only=True)
class Tap(ErrorMaximizing):
    """Descends the loss of the next class on a network trained on the clean set.

    Starts at noise budget * clip(N(0, 1), -1, 1); every step sees the images shifted and flipped
    at random and moves `step` of the budget against the sign of the gradient.
    """

    card = Card(
        paper=_PAPER,
        code="lhfowl/adversarial_poisons@a1d58d8 (village/shop)",
        published={
            "cifar10/tap/none/resnet18/supervised/apbench/0": 0.0434,
            "cifar10/tap/standard/resnet18/supervised/apbench/0": 0.0627,
            "cifar10/tap/grayscale/resnet18/supervised/apbench/0": 0.1101,
            "cifar10/tap/standard/resnet18/supervised/learned_faster/0": 0.0815,
            "cifar10/tap/standard/resnet18/supervised/tp/0": 0.0694,
        },
        needs="labels; a surrogate trained on the clean set",
        cost="500 forward passes per image, and the surrogate",
        notes="one restart; the paper's eight are tap_full. APBench's code defaults to "
        "untargeted though its text is not. D-VAE's TAP is another program: tap_remrepo. The "
        "printed numbers are those of shifts whose border is the mean color, as here from version "
        "2 on, in the surrogate's training too",
    )
    quick: ClassVar[Mapping[str, Scalar]] = {
        "surrogate": "small_cnn",
        "surrogate_epochs": 6,
        "batch_size": 128,
        "steps": 12,
        "step": 0.2,
    }
    tiny: ClassVar[Mapping[str, Scalar]] = {**TransferAttack.tiny, "step": 0.2}

    version: ClassVar[int] = 2

    start: Literal["zero", "uniform", "normal"] = "normal"
    augmentation: Literal["none", "affine_shift", "crop_flip"] = "affine_shift"


@ATTACKS.register("tap_full")
@dataclass(frozen=True, kw_only=True)
class TapFull(Tap):
    """TAP, several times over; the run with the smallest mean loss over all images is kept.

    The loss of a run is that of its finished images without augmentation (the official code takes
    that of its last pass), so that a run that was cut off can go on.
    """

    card = Card(
        paper=_PAPER,
        code="lhfowl/adversarial_poisons@a1d58d8",
        needs="labels; a surrogate trained on the clean set",
        cost="4,000 forward passes per image, and the surrogate",
        notes="borders of the shifts as in `tap`",
    )
    tiny: ClassVar[Mapping[str, Scalar]] = {**TransferAttack.tiny, "restarts": 2}
    sharded: ClassVar[bool] = False
    effort: ClassVar[frozenset[str]] = Tap.effort | {"restarts"}

    restarts: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.restarts >= 1, f"restarts is {self.restarts}, allowed from 1")

    def passes(self, n: int) -> float:
        return self.restarts * (super().passes(n) + 1)

    def propose(self, images: Images, context: AttackContext) -> Tensor:
        chain = _Restarts(context.progress, self.restarts)
        for number in range(chain.first, self.restarts):
            stream = context.stream.child("restart", number)
            part = dataclasses.replace(context, stream=stream, progress=chain)
            pixels = super().propose(images, part)
            chain.finish(pixels, self._loss(images.with_pixels(pixels), context))
        context.facts["loss"] = chain.loss
        assert chain.best is not None
        return chain.best

    @no_grad
    def _loss(self, poisoned: Images, context: AttackContext) -> float:
        network = context.surrogates[self.recipe.name]
        total = 0.0
        for rows in torch.arange(len(poisoned)).split(self.batch_size):
            logits = network(poisoned.floats(rows).to(context.device))
            total += float(self.losses(logits, poisoned.labels[rows].to(context.device)).sum())
        return total / len(poisoned)


class _Restarts:
    """Progress of the current run; the best finished one goes along in every checkpoint."""

    def __init__(self, outer: Progress, count: int) -> None:
        self.outer = outer
        self.count = count
        self.saved = outer.load()
        tensors, facts = self.saved or ({}, {})
        self.first = self.number = int(facts.get("restart", 0))
        self.loss = float(facts.get("loss", float("inf")))
        self.best = tensors.get("best")

    def report(self, done: int, total: int, **facts: float) -> None:
        self.outer.report(self.number * total + done, self.count * total, **facts)

    def save(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        best = {} if self.best is None else {"best": self.best}
        self.outer.save({**tensors, **best}, {**facts, "restart": self.number, "loss": self.loss})

    def load(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]] | None:
        saved, self.saved = self.saved, None
        return saved if saved is not None and "pixels" in saved[0] else None

    def finish(self, pixels: Tensor, loss: float) -> None:
        """A run is over; its pixels are kept if they are the best so far."""
        if loss < self.loss:
            self.best, self.loss = pixels, loss
        self.number += 1
        self.save({}, {})


@ATTACKS.register("tap_remrepo")
@dataclass(frozen=True, kw_only=True)
class TapRemRepo(Tap):
    """TAP as the REM code makes it: small steps, uniform start, crops and flips.

    The noise leaves the pixel range and is clipped inside the forward pass only.
    """

    card = Card(
        paper=_PAPER + ", as remade by Fu et al. 2022 (REM)",
        code="fshp971/robust-unlearnable-examples",
        published={
            "cifar10/tap_remrepo/standard/resnet18/supervised/dvae/0": 0.2544,
            "cifar10/tap_remrepo(budget=16/255)/standard/resnet18/supervised/dvae/0": 0.1845,
            "cifar100/tap_remrepo/standard/resnet18/supervised/dvae/0": 0.1344,
        },
        needs="labels; a surrogate trained on the clean set",
        cost="500 forward passes per image, and the surrogate",
        notes="40,000 surrogate steps at batch 128 are 103 epochs of CIFAR-10, the rate falls "
        "every 41",
    )
    box: ClassVar[bool] = False
    version: ClassVar[int] = 1  # its crops were never concerned by what changed in `tap`

    step: float | None = 0.008
    start: Literal["zero", "uniform", "normal"] = "uniform"
    augmentation: Literal["none", "affine_shift", "crop_flip"] = "crop_flip"
    surrogate_epochs: int = 103

    @property
    def recipe(self) -> SurrogateRecipe:
        epochs = self.surrogate_epochs
        falls = tuple(max(1, round(epochs * k * 0.4)) for k in (1, 2))
        recipe = Recipe(epochs=epochs, schedule="step", milestones=falls, drop_last=True)
        return SurrogateRecipe("rem40k", self.surrogate, recipe, "crop_flip", "centered")
