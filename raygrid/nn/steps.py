"""What one step of a training gets and gives: a batch, a loss, and what to count."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raygrid.core.lazy import nn, torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Batch:
    """What a step function gets: float32 images (n, C, H, W) in [0, 1] on the device, and more.

    x: a step function may put other images in its place, so that whoever takes several steps on a
    batch sets it anew before each. rng: for this batch's draws, made with `core.draws`. index: rows
    of the training set. flips: whether its images may be mirrored. mirrored: bool (n,), which of
    them an augmentation mirrors, None where it draws that itself. smoothing: the recipe's, of
    labels.
    """

    x: Tensor
    y: Tensor
    index: Tensor
    rng: torch.Generator
    epoch: int
    flips: bool = True
    mirrored: Tensor | None = None
    smoothing: float = 0.0

    def target(self, y: Tensor, classes: int) -> Tensor:
        """Labels of this batch as the loss takes them; see `smoothed`."""
        return smoothed(y, classes, self.smoothing)


@dataclass
class Step:
    """What a step function returns: a scalar loss to descend, and what to count.

    hits: how many of `count` samples count as correct (a scalar tensor, may be fractional).
    """

    loss: Tensor
    hits: Tensor
    count: int


StepFunction = Callable[[Batch], Step]


def autocast(precision: str, device: torch.device | str) -> AbstractContextManager[Any]:
    """The autocast region of a precision; float32 opens none."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, torch.bfloat16)


def smoothed(y: Tensor, classes: int, share: float) -> Tensor:
    """Labels with a share of each spread evenly over all classes; as they are if that is 0.

    y: int64 (n,), or class weights float32 (n, classes). Returns class weights unless share is 0.
    """
    if share == 0:
        return y
    weights = nn.functional.one_hot(y, classes).float() if y.dim() == 1 else y
    return weights * (1 - share) + share / classes


def classify_step(model: nn.Module, batch: Batch, precision: str) -> Step:
    """Plain cross-entropy on a batch: what surrogates and the undefended victim train with."""
    from raygrid.nn.casts import cast_at_once  # it loads torch, which a plan does without

    with autocast(precision, batch.x.device), cast_at_once(model, batch.x.device):
        logits = model(batch.x)
    target = batch.target(batch.y, logits.shape[1])
    loss = nn.functional.cross_entropy(logits.float(), target)
    return Step(loss, (logits.argmax(1) == batch.y).sum(), len(batch.y))
