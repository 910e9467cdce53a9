"""Randomness by named axis: every draw comes from an explicit generator with a derived seed.

An axis (`poison`, `init`, `data`, ...) depends on just what it is given, so two trials that share
those things share the draws. Nothing here or in a method touches the global generators.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from raygrid.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK = 256


def derive_seed(axis: str, *depends: Any) -> int:
    """A 63-bit seed that is a pure function of the axis and the JSON values it depends on."""
    text = json.dumps([axis, *depends], sort_keys=True, default=str)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@dataclass(frozen=True)
class Stream:
    """A source of generators for one axis."""

    axis: str
    depends: tuple[Any, ...] = ()

    def child(self, *more: Any) -> Stream:
        """A stream of its own for a part of the work."""
        return Stream(self.axis, (*self.depends, *more))

    def seed(self, *more: Any) -> int:
        return derive_seed(self.axis, *self.depends, *more)

    def generator(self, *more: Any) -> torch.Generator:
        """A fresh generator of the host; the same arguments give the same draws everywhere.

        For numbers on a device draw with `core.draws`.
        """
        generator = torch.Generator()
        generator.manual_seed(self.seed(*more))
        return generator

    def rows(
        self,
        draw: Any,
        index: Tensor,
        shape: tuple[int, ...],
        kind: Literal["normal", "uniform"] = "normal",
    ) -> Tensor:
        """Draws that belong to samples: float32 (len(index), *shape) on the CPU.

        Row i is a function of (stream, draw, index[i]) alone, so neither batch size nor sharding
        changes it. Draws are made in blocks of samples; whole blocks cost what plain draws cost.
        """
        index = index.cpu()
        out = torch.empty((len(index), *shape))
        blocks = torch.div(index, _BLOCK, rounding_mode="floor")
        for block in blocks.unique().tolist():
            generator = self.generator(draw, block)
            full = (_BLOCK, *shape)
            values = (
                torch.randn(full, generator=generator)
                if kind == "normal"
                else torch.rand(full, generator=generator)
            )
            here = blocks == block
            out[here] = values[index[here] - block * _BLOCK]
        return out


@contextmanager
def forked(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Run code that can only draw from the global generators, and leave these as they were.

    The users are parameter initialization, dropout and kornia, which take no generator.
    """
    devices = [torch.device(device)] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
