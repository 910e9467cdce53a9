"""What class-wise attacks share: one perturbation a class, whatever the image."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from raygrid.attacks.base import Attack, Craft
from raygrid.data import Images


@dataclass(frozen=True, kw_only=True)
class ClassWise(Attack):
    """Adds the pattern of its class to every image."""

    sharded: ClassVar[bool] = True

    @abstractmethod
    def patterns(self, images: Images, craft: Craft) -> Tensor:
        """float32 (classes, C, H, W) in [-1, 1]; looks at the shape of the images alone."""

    def propose(self, images: Images, craft: Craft) -> Tensor:
        return self.patterns(images, craft)[images.labels[craft.index(images)]]


def scale_l2(delta: Tensor, length: float) -> Tensor:
    """Each perturbation (n, C, H, W) at this Euclidean length, in place; zeros stay zero."""
    lengths = delta.flatten(1).norm(dim=1).clamp_min(1e-12)
    return delta.mul_((length / lengths).view(-1, 1, 1, 1))
