"""Attacks whose proposal is made a few rows at a time, since it needs no network."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raygrid.attacks.base import Attack, AttackContext
from raygrid.core.images import Images
from raygrid.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_VALUES = 2**22
_BLOCK = 256  # rows whose draws come together in `Stream.rows`


@dataclass(frozen=True, kw_only=True)
class Piecewise(Attack):
    """Base of attacks that never hold the floats of a whole training set."""

    @abstractmethod
    def pieces(self, images: Images, context: AttackContext) -> Iterator[Tensor]:
        """The proposal of `propose`, in order, for as many rows at a time as the method likes."""

    def propose(self, images: Images, context: AttackContext) -> Tensor:
        return torch.cat(list(self.pieces(images, context)))


def few(rows: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Rows (n, ...) in pieces of about 16 MB of float32 images of a shape; one if there are none.

    A piece ends with a block of draws, so that none of them is drawn twice for neighbors.
    """
    blocks = _VALUES // math.prod(shape) // _BLOCK
    return rows.split(max(1, blocks) * _BLOCK)
