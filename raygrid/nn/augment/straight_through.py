"""A gradient for steps that have none."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Through(torch.autograd.Function):
    """A step whose gradient is that of the identity where it has none of its own."""

    @staticmethod
    def forward(ctx: Any, step: Any, x: Tensor) -> Tensor:
        with torch.enable_grad():
            ctx.x = x.detach().requires_grad_()
            ctx.out = step(ctx.x)
        return ctx.out.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        (own,) = torch.autograd.grad(ctx.out, ctx.x, gradient)
        return None, torch.where(own.any(), own, gradient)
