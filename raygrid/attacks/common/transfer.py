"""Attacks that descend on one network trained on the clean set beforehand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from raygrid.attacks.base import AttackContext
from raygrid.attacks.common.gradient import GradientAttack, in_batches, next_class
from raygrid.attacks.common.surrogates import SurrogateRecipe, normalized_by, tap40
from raygrid.core.draws import sent
from raygrid.core.images import Images
from raygrid.core.lazy import nn, torch
from raygrid.core.literals import Scalar
from raygrid.core.registry import require
from raygrid.nn.augment import CropFlip, shift_by
from raygrid.nn.pgd import Descent, Direction, Objective, sign
from raygrid.nn.steps import autocast

if TYPE_CHECKING:
    from torch import Tensor


def crop_flip_by(x: Tensor, draws: Tensor) -> Tensor:
    """Zero-padded crop and flip; draws are uniform in [0, 1), (n, 3), as for `shift_by`."""
    padding = x.shape[-1] // 8
    offsets = (draws[:, :2] * (2 * padding + 1)).long()
    return CropFlip(padding).apply(x, (offsets, draws[:, 2] < 0.5))


def seen_by(network: nn.Module, augmentation: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The augmentation of pixels (n, C, H, W) in [0, 1] by draws (n, 3), for this network.

    TAP's code normalizes before it shifts, so that the shift brings in the network's mean color;
    the crops of REM's code bring in black.
    """
    if augmentation == "crop_flip":
        return crop_flip_by
    fill = normalized_by(network)[0]
    return lambda x, draws: shift_by(x, draws, fill)


@dataclass(frozen=True, kw_only=True)
class TransferAttack(GradientAttack):
    """Signed descent of a loss of a frozen network, in [0, 1] and within the budget.

    Every step sees the images through a fresh `augmentation` of its own for each image. Draws
    belong to (image, step), so rows can be split at will.
    """

    tiny: ClassVar[Mapping[str, Scalar]] = {
        "surrogate": "small_cnn",
        "surrogate_epochs": 2,
        "batch_size": 16,
        "steps": 3,
    }

    sharded: ClassVar[bool] = True
    box: ClassVar[bool] = True
    effort: ClassVar[frozenset[str]] = GradientAttack.effort | {"step", "steps", "surrogate_epochs"}

    surrogate_epochs: int | None = 40
    steps: int = 250
    step: float | None = 0.05  # of the budget; none: as much as reaches it in all steps
    start: Literal["zero", "uniform", "normal"] = "zero"  # noise before the first step
    augmentation: Literal["none", "affine_shift", "crop_flip"] = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.steps >= 1, f"steps is {self.steps}, allowed are whole numbers from 1")
        positive = self.step is None or self.step > 0
        require(positive, f"step is {self.step}, allowed are positive shares of the budget")
        epochs = self.surrogate_epochs
        enough = self.epochs_before >= 1
        require(enough, f"surrogate_epochs is {epochs}, allowed are whole numbers from 1")

    @property
    def seeded(self) -> bool:  # type: ignore[override]  # a constant of other attacks
        """Whether anything is drawn here; the surrogate's seed is part of its own key."""
        return self.start != "zero" or self.augmentation != "none"

    @property
    def epochs_before(self) -> int:
        """Epochs of the surrogate's training."""
        return self.surrogate_epochs or 0

    @property
    def recipe(self) -> SurrogateRecipe:
        return tap40(self.surrogate, self.epochs_before)

    def needs(self) -> tuple[SurrogateRecipe, ...]:
        return (self.recipe,)

    def passes(self, n: int) -> float:
        return 2.0 * self.steps

    @property
    def passes_in(self) -> Literal["bf16", "fp32"]:
        """The precision of the passes through the surrogate."""
        return "fp32"

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """What is descended, for each image: logits (n, classes), labels (n,) -> (n,)."""
        raise NotImplementedError

    @property
    def descent(self) -> Descent:
        share = 1 / self.steps if self.step is None else self.step
        return Descent(self.radius, share * self.radius, self.steps, self.box)

    def direction(self, network: nn.Module) -> Direction:
        """A fresh map from gradients to directions, for one batch; network: the surrogate."""
        return sign

    def propose(self, images: Images, context: AttackContext) -> Tensor:
        network = context.surrogates[self.recipe.name]

        def make(x: Tensor, rows: Tensor) -> Tensor:
            labels = images.labels[rows].to(x.device)
            objective = self.objective(network, labels, rows, context)
            start = x + self.first(x, rows, context)
            return self.descent(x, start, objective, self.direction(network))[0]

        return in_batches(images, context, self.batch_size, make)

    def first(self, x: Tensor, rows: Tensor, context: AttackContext) -> Tensor:
        """The noise before the first step, within the budget but not yet in the pixel range."""
        if self.start == "zero":
            return torch.zeros_like(x)
        kind: Literal["normal", "uniform"] = "normal" if self.start == "normal" else "uniform"
        draws = context.stream.rows("start", rows, tuple(x.shape[1:]), kind).to(x.device)
        if kind == "uniform":
            draws = draws * 2 - 1
        return draws.clamp_(-1, 1).mul_(self.radius)

    def objective(
        self, network: nn.Module, labels: Tensor, rows: Tensor, context: AttackContext
    ) -> Objective:
        """The losses of a batch as a function of its pixels and the step."""
        seen = self.seen(network, rows, context)

        def losses(z: Tensor, step: int) -> Tensor:
            with autocast(self.passes_in, z.device):
                logits = network(seen(z, step))
            return self.losses(logits.float(), labels)

        return losses

    def seen(
        self, network: nn.Module, rows: Tensor, context: AttackContext
    ) -> Callable[[Tensor, int], Tensor]:
        """How the network sees the pixels of a batch in a step."""
        transform = seen_by(network, self.augmentation)

        def augmented(z: Tensor, step: int) -> Tensor:
            if not self.box:
                z = z.clamp(0, 1)
            if self.augmentation != "none":
                draws = context.stream.rows(["augmentation", step], rows, (3,), "uniform")
                z = transform(z, sent(draws, z.device))
            return z

        return augmented


@dataclass(frozen=True, kw_only=True)
class ErrorMaximizing(TransferAttack):
    """Toward the next class or away from the own one."""

    targeted: bool = True  # toward the next class instead of away from the label

    def intended(self, labels: Tensor, classes: int) -> Tensor | None:
        return next_class(labels, classes) if self.targeted else None

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        wanted = self.intended(labels, logits.shape[1])
        if wanted is not None:
            return nn.functional.cross_entropy(logits, wanted, reduction="none")
        return -nn.functional.cross_entropy(logits, labels, reduction="none")
