"""Noise on the bases of a set-up: the control that every attack on a target is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from raygrid.attacks.base import ATTACKS, AttackContext
from raygrid.attacks.common.targeted import CleanLabel, scene_of
from raygrid.core.images import Images
from raygrid.core.lazy import torch
from raygrid.core.registry import Card

if TYPE_CHECKING:
    from torch import Tensor


@ATTACKS.register("base_noise")
@dataclass(frozen=True, kw_only=True)
class BaseNoise(CleanLabel):
    """+budget or -budget for every value of every base; it knows nothing of the target."""

    card = Card(paper="control", cost="nothing")

    def propose(self, images: Images, context: AttackContext) -> Tensor:
        slots = scene_of(context, self.id).slots
        draws = torch.rand((len(slots), *images.shape), generator=context.stream.generator("noise"))
        return (draws.round() * 2 - 1) * self.limit_at(images.shape[-1]).value
