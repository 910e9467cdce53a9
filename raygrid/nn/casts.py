"""All weights of a network cast for autocast at once, and their gradients back at once.

autocast casts weight by weight as layers meet them, and gradients likewise: two launches a layer in
every step. The numbers are the same either way.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

CAST_LAYERS = (nn.Conv2d, nn.Linear)
"""Layers that compute in autocast's type, weight and bias."""


class _CastAll(torch.autograd.Function):
    """float32 tensors to another type, and gradients back."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        return _copies(weights, dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        there = iter(_copies([g for g in grads if g is not None], torch.float32))
        return None, *(None if g is None else next(there) for g in grads)


def _copies(values: Any, dtype: torch.dtype) -> tuple[Tensor, ...]:
    made = [torch.empty_like(value, dtype=dtype) for value in values]
    if made:
        torch._foreach_copy_(made, list(values))
    return tuple(made)


@contextlib.contextmanager
def cast_at_once(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Inside of autocast on a GPU: layers find their weights cast already.

    For one pass in which nobody asks the model for its parameters. Nothing happens on a CPU, where
    a launch costs nothing, and where no gradient is wanted.
    """
    wanted = torch.is_grad_enabled() and device.type != "cpu"
    if not wanted or not torch.is_autocast_enabled(device.type):
        yield
        return
    places = [
        (layer._parameters, name, weight)
        for layer in model.modules()
        if isinstance(layer, CAST_LAYERS)
        for name, weight in layer._parameters.items()
        if weight is not None and weight.requires_grad and weight.dtype == torch.float32
    ]
    cast = _CastAll.apply(torch.get_autocast_dtype(device.type), *(w for *_, w in places))
    try:
        for (held, name, _), value in zip(places, cast, strict=True):
            held[name] = value
        yield
    finally:
        for held, name, weight in places:
            held[name] = weight
