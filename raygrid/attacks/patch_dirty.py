"""The plain backdoor: patched images of other classes under the wanted label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from raygrid.attacks.base import ATTACKS, AttackContext
from raygrid.attacks.common.targeted import TargetedAttack, scene_of
from raygrid.core.images import Images
from raygrid.core.lazy import torch
from raygrid.core.registry import Card

if TYPE_CHECKING:
    from torch import Tensor


@ATTACKS.register("patch_dirty")
@dataclass(frozen=True, kw_only=True)
class PatchDirty(TargetedAttack):
    """The positive control: in place of each base a patched image of another class, relabeled.

    No budget and no clean labels: if this does not work, no backdoor can.
    """

    card = Card(paper="Gu et al. 2017 (BadNets); here a control")
    pasted: ClassVar[str] = "clbd"

    def propose(self, images: Images, context: AttackContext) -> Tensor:
        scene = scene_of(context, self.id)
        rows = (scene.whole.labels != scene.wanted).nonzero().squeeze(1)
        order = torch.randperm(len(rows), generator=context.stream.generator("sources"))
        chosen = scene.whole.pixels[rows[order[: len(scene.slots)]]]
        return scene.triggers[self.pasted].apply(chosen)
