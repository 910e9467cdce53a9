"""Noise on the weights of a network, for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from raygrid.core import draws
from raygrid.core.lazy import nn, torch


@contextmanager
def disturbed(module: nn.Module, sigma: float, rng: torch.Generator) -> Iterator[None]:
    """Gaussian noise of this sd on every parameter of a module; afterwards they are as before.

    Buffers, such as running means of batch norm, are left alone.
    """
    parameters = list(module.parameters())
    kept = [parameter.detach().clone() for parameter in parameters]
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(draws.randn(parameter.shape, rng, parameter.device), alpha=sigma)
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, kept, strict=True):
                parameter.copy_(value)
