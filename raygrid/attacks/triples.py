"""Poisons that others crafted for the benchmark's set-ups, from its own files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from raygrid.attacks.base import ATTACKS, AttackContext
from raygrid.attacks.common.targeted import CleanLabel, scene_of
from raygrid.core.errors import DataError, SpecError
from raygrid.core.images import Images, Poison
from raygrid.core.lazy import torch
from raygrid.core.registry import Card, Combination
from raygrid.protocols.setups import triples as files

if TYPE_CHECKING:
    from torch import Tensor


@ATTACKS.register("triples")
@dataclass(frozen=True, kw_only=True)
class Triples(CleanLabel):
    """Reads `path/<number of the set-up>/`, see `raygrid.protocols.setups.triples`.

    check: `exact` refuses a poison that leaves the budget by one level; `official_9` lets one level
    more pass, as the benchmark's evaluator does (its own images are truncated, not rounded).
    """

    card = Card(
        paper="none; whatever the files' source is",
        code="aks2203/poisoning-benchmark@97a67ae, how_to.md",
        needs="a folder at `path` on every machine that makes the poison",
        cost="reading the files",
    )
    seeded: ClassVar[bool] = False

    path: str = ""
    check: Literal["exact", "official_9"] = "exact"

    def resolved(self) -> dict[str, Any]:
        content = files.triples_content(Path(self.path)) if self.path else ""
        return {**super().resolved(), "path": content}

    def skip(self, combination: Combination) -> str | None:
        if not self.path:
            return "triples needs a path: triples(path=/where/they/are)"
        if not Path(self.path).is_dir():
            return f"{self.path} is not there"
        return super().skip(combination)

    def propose(self, images: Images, context: AttackContext) -> Tensor:
        return self._placed(images, context).pixels

    def poison(self, images: Images, context: AttackContext) -> Poison:
        scene, triple = scene_of(context, self.id), self._placed(images, context)
        target = (scene.setup.target,)
        return Poison(scene.slots, triple.pixels, triple.labels, target, triple.trigger)

    def _placed(self, images: Images, context: AttackContext) -> files.Triple:
        """The poisons of the set-up in the order of its bases; raises DataError."""
        if not self.path:
            raise SpecError("the attack triples needs a path: triples(path=/where/they/are)")
        scene = scene_of(context, self.id)
        folder = Path(self.path) / str(scene.setup.number)
        triple = files.read_triples(folder)
        wanted, given = scene.setup.bases, triple.bases
        if not torch.equal(wanted.sort().values, given.sort().values):
            raise DataError(f"{folder} is not made of the bases of set-up {scene.setup.number}")
        if bool((triple.labels != scene.wanted).any()):
            raise DataError(f"{folder} has poisons with another label than {scene.wanted}")
        order = torch.empty_like(wanted)
        order[wanted.argsort(stable=True)] = given.argsort(stable=True)
        placed = files.Triple(
            triple.pixels[order],
            triple.labels[order],
            given[order],
            triple.target,
            triple.target_label,
            triple.trigger,
        )
        placed.check(images.pixels[scene.slots], self.budget.levels, self.check)
        return placed
