"""Batch norm by parts of a batch, as a network has it that learns on several GPUs."""

from __future__ import annotations

from torch import Tensor, nn

from raygrid.core.errors import SpecError


class GhostNorm(nn.Module):
    """Ghost batch normalization (Hoffer et al. 2017): every part of a batch has its own statistics.

    Image i of a batch (n, C, H, W) belongs to part i mod `parts`. The running statistics move by
    the mean over parts. In eval mode it is the norm that it wraps. Raises SpecError in training if
    n is not a multiple of `parts`.
    """

    def __init__(self, norm: nn.BatchNorm2d, parts: int) -> None:
        super().__init__()
        self.norm = norm
        self.parts = parts

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            out: Tensor = self.norm(x)
            return out
        n, channels, height, width = x.shape
        if n % self.parts:
            raise SpecError(f"a batch of {n} images has no {self.parts} equal parts")
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.momentum is not None
        mean, var = (s.repeat(self.parts) for s in (norm.running_mean, norm.running_var))
        weight, bias = (p if p is None else p.repeat(self.parts) for p in (norm.weight, norm.bias))
        apart = x.reshape(n // self.parts, self.parts * channels, height, width)
        out = nn.functional.batch_norm(
            apart, mean, var, weight, bias, True, norm.momentum, norm.eps
        )
        norm.running_mean.copy_(mean.view(self.parts, channels).mean(0))
        norm.running_var.copy_(var.view(self.parts, channels).mean(0))
        return out.view(n, channels, height, width)


def ghost_norms(model: nn.Module, parts: int) -> None:
    """Put every 2d batch norm of a network behind a `GhostNorm` of so many parts, in place."""
    found = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    for name in found:
        parent, _, leaf = name.rpartition(".")
        norm = model.get_submodule(name)
        assert isinstance(norm, nn.BatchNorm2d)
        setattr(model.get_submodule(parent), leaf, GhostNorm(norm, parts))
