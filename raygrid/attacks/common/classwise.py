"""What class-wise attacks share: one perturbation a class, whatever the image."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from raygrid.attacks.base import AttackContext
from raygrid.attacks.common.piecewise import Piecewise, few
from raygrid.core.errors import SpecError
from raygrid.core.images import Images
from raygrid.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ClassWise(Piecewise):
    """Adds the pattern of its class to every image."""

    sharded: ClassVar[bool] = True

    @abstractmethod
    def patterns(self, images: Images, context: AttackContext) -> Tensor:
        """float32 (classes, C, H, W) in [-1, 1]; looks at the shape of the images alone."""

    def pieces(self, images: Images, context: AttackContext) -> Iterator[Tensor]:
        patterns = self.patterns(images, context)
        for rows in few(context.index(images), images.shape):
            yield patterns[images.labels[rows]]


def distinct_signs(count: int, features: int, generator: torch.Generator) -> Tensor:
    """Random vertices of {-1, 1}^features, no two alike: float32 (count, features).

    Raises SpecError if there are not that many.
    """
    if features < 63 and count > 2**features:
        raise SpecError(f"{features} signs make {2**features} patterns, {count} were asked for")
    bits = torch.randint(2, (count, features), generator=generator)
    while (again := _repeats(bits)).any():
        bits[again] = torch.randint(2, (int(again.sum()), features), generator=generator)
    return bits.float() * 2 - 1


def collisions(signs: Tensor) -> int:
    """How many rows repeat an earlier row."""
    return int(_repeats(signs).sum())


def _repeats(rows: Tensor) -> Tensor:
    """bool (n,): whether a row is equal to an earlier one."""
    kind = rows.unique(dim=0, return_inverse=True)[1]
    first = torch.full((len(rows),), len(rows)).scatter_reduce(
        0, kind, torch.arange(len(rows)), "amin"
    )
    return first[kind] != torch.arange(len(rows))


def scale_l2(delta: Tensor, length: float) -> Tensor:
    """Each perturbation (n, C, H, W) at this Euclidean length, in place; zeros stay zero."""
    lengths = delta.flatten(1).norm(dim=1).clamp_min(1e-12)
    return delta.mul_((length / lengths).view(-1, 1, 1, 1))
