"""Random numbers for a device, drawn by the host's generator: every kind of device gets the same.

A GPU's own generators draw other numbers than a CPU's, and other ones on another card. Methods draw
with the functions here. On a CPU they are torch's own; for a device the numbers are sent there, and
in a training loop many batches of them at once, ahead of their use (`lookahead`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raygrid.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Request:
    """What is drawn: numbers of a distribution, `low` and `high` for integers.

    here: whether they stay on the host.
    """

    kind: str
    shape: tuple[int, ...]
    low: int = 0
    high: int = 0
    here: bool = True

    def draw(self, rng: torch.Generator) -> Tensor:
        """The numbers, on the CPU: float32, integers int64."""
        if self.kind == "rand":
            return torch.rand(self.shape, generator=rng)
        if self.kind == "randn":
            return torch.randn(self.shape, generator=rng)
        if self.kind == "randint":
            return torch.randint(self.low, self.high, self.shape, generator=rng)
        return torch.randperm(self.shape[0], generator=rng)

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * (4 if self.kind in ("rand", "randn") else 8)


def rand(shape: Sequence[int], rng: torch.Generator, device: torch.device | str = "cpu") -> Tensor:
    """Uniform in [0, 1), float32, on the device."""
    return _drawn("rand", tuple(shape), (0, 0), rng, device)


def randn(shape: Sequence[int], rng: torch.Generator, device: torch.device | str = "cpu") -> Tensor:
    """Standard normal, float32, on the device."""
    return _drawn("randn", tuple(shape), (0, 0), rng, device)


def randint(
    low: int,
    high: int,
    shape: Sequence[int],
    rng: torch.Generator,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Integers from low to high - 1, int64, on the device."""
    return _drawn("randint", tuple(shape), (low, high), rng, device)


def randperm(n: int, rng: torch.Generator, device: torch.device | str = "cpu") -> Tensor:
    """0 to n - 1 in some order, int64, on the device."""
    return _drawn("randperm", (n,), (0, 0), rng, device)


def _drawn(
    kind: str,
    shape: tuple[int, ...],
    span: tuple[int, int],
    rng: torch.Generator,
    device: torch.device | str,
) -> Tensor:
    device = torch.device(device)
    request = Request(kind, shape, *span, device.type == "cpu")
    take = getattr(rng, "take", None)  # of `lookahead.Ahead`
    found: Tensor = uploaded(request.draw(rng), device) if take is None else take(request)
    return found


@dataclass
class Sends:
    """How often `sent` was called in this process."""

    count: int = 0


SENDS = Sends()


def sent(values: Tensor, device: torch.device | str) -> Tensor:
    """Host values other than draws on a device, counted: a recorded step has none of its own."""
    SENDS.count += 1
    return uploaded(values, device)


def uploaded(values: Tensor, device: torch.device | str) -> Tensor:
    """Values on a device; CUDA fetches those of the host from pinned memory, so nobody waits."""
    device = torch.device(device)
    if device.type == "cuda" and values.device.type == "cpu":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)
