"""How images are held to a budget, and how much of one they took, on final uint8 pixels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from raygrid.core.budget import NORMS, Budget
from raygrid.core.errors import DivergedError, SpecError
from raygrid.core.images import to_uint8
from raygrid.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_CHUNK = 2**22
"""Values that are looked at together: temporaries stay small and in cache."""


def enforce(clean: Tensor, proposed: Tensor, budget: Budget, out: Tensor | None = None) -> Tensor:
    """Final pixels that hold the budget after rounding.

    clean: uint8 (n, C, H, W). proposed: float perturbation or uint8 pixels of the same shape.
    linf is exact in whole levels; l2 within the rounding bound 0.5 * sqrt(CHW) / 255, where pixels
    that keep it stay as they are and others are shrunk as a perturbation is; l0 exact
    (a proposal that changes more pixels raises SpecError, there is no nearest legal one).
    out: where the result goes, uint8 of the same shape; by default somewhere new.
    Raises DivergedError for a perturbation that is not finite.
    """
    out = torch.empty_like(clean) if out is None else out
    parts = (tensor.split(_step(clean)) for tensor in (clean, proposed, out))
    for before, change, after in zip(*parts, strict=True):
        after.copy_(_hold(before, change, budget))
    return out


def _step(images: Tensor) -> int:
    """How many of these images (n, ...) are looked at together."""
    return max(1, _CHUNK // max(1, math.prod(images.shape[1:])))


def _hold(clean: Tensor, proposed: Tensor, budget: Budget) -> Tensor:
    out = (_shrunk if proposed.dtype == torch.uint8 else _add)(clean, proposed, budget)
    if budget.norm == "linf":
        change = out.short() - clean.short()
        return (clean.short() + change.clamp_(-budget.levels, budget.levels)).to(torch.uint8)
    if budget.norm == "l0" and int(_size_of_change(clean, out, "l0").max()) > budget.value:
        worst = int(_size_of_change(clean, out, "l0").max())
        raise SpecError(f"an image changed in {worst} pixels, the budget is {budget}")
    return out


def _add(clean: Tensor, delta: Tensor, budget: Budget) -> Tensor:
    if not bool(torch.isfinite(delta).all()):
        raise DivergedError(None, float(delta.sum()), "noise", "its sum")
    if budget.norm == "l2":
        length = delta.flatten(1).norm(dim=1).clamp_min(1e-12)
        delta = delta * (budget.value / length).clamp_max(1.0).view(-1, 1, 1, 1)
    return to_uint8(clean.float().div_(255).add_(delta))


def _shrunk(clean: Tensor, pixels: Tensor, budget: Budget) -> Tensor:
    """The same pixels; those beyond an l2 budget with the same change at its length."""
    if budget.norm != "l2":
        return pixels
    over = beyond(clean, pixels, budget).view(-1, 1, 1, 1)
    return pixels.where(~over, _add(clean, (pixels.float() - clean.float()) / 255, budget))


def size_of_change(clean: Tensor, poisoned: Tensor, norm: str) -> Tensor:
    """Size of the change of each image, float32 (n,): linf and l2 in [0, 1] units, l0 in pixels."""
    out = torch.empty(len(clean), device=clean.device)
    parts = (tensor.split(_step(clean)) for tensor in (clean, poisoned, out))
    for before, after, size in zip(*parts, strict=True):
        size.copy_(_size_of_change(before, after, norm))
    return out


def facts_of_change(clean: Tensor, poisoned: Tensor) -> dict[str, Any]:
    """What images changed by, as JSON values.

    size: mean and largest change by norm (see `size_of_change`). unchanged: images without any.
    """
    sizes = {norm: size_of_change(clean, poisoned, norm) for norm in NORMS}
    size = {n: {"mean": float(s.mean()), "max": float(s.max())} for n, s in sizes.items()}
    return {"size": size, "unchanged": int((sizes["l0"] == 0).sum())}


def _size_of_change(clean: Tensor, poisoned: Tensor, norm: str) -> Tensor:
    change = (poisoned.short() - clean.short()).float()
    if norm == "linf":
        return change.flatten(1).abs().amax(1) / 255
    if norm == "l2":
        return change.flatten(1).norm(dim=1) / 255
    return (change != 0).any(1).flatten(1).sum(1).float()


def beyond(clean: Tensor, poisoned: Tensor, budget: Budget) -> Tensor:
    """Which images changed by more than the budget, bool (n,); l2 by more than rounding explains.

    clean, poisoned: uint8 (n, C, H, W).
    """
    size = size_of_change(clean, poisoned, budget.norm)
    if budget.norm == "linf":
        return size.mul(255).round() > budget.levels
    return size > budget.value + rounding(budget, tuple(clean.shape[1:])) + 1e-6


def rounding(budget: Budget, shape: tuple[int, ...]) -> float:
    """How far rounding to whole levels may exceed a budget, for images of shape (C, H, W).

    Half a level in every value under l2, 0.5 * sqrt(C * H * W) / 255; nothing under linf and l0.
    """
    return 0.5 * math.prod(shape) ** 0.5 / 255 if budget.norm == "l2" else 0.0
