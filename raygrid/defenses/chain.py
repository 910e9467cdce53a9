"""Several defenses in the order in which they act, as one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raygrid.core.errors import SpecError
from raygrid.core.lazy import nn, torch
from raygrid.core.spec import Part
from raygrid.defenses.base import DEFENSES, Defense, Pair, Selection, Study
from raygrid.nn.steps import Batch

if TYPE_CHECKING:
    from torch import Tensor

    from raygrid.nn.contrastive.base import Framework


@dataclass(frozen=True)
class Chain:
    """Defenses in the order in which they act, as one defense."""

    links: tuple[Defense, ...]

    def __post_init__(self) -> None:
        roles = {
            "loss hooks": [d.id for d in self.links if d.acts("loss")],
            "contrast hooks": [d.id for d in self.links if d.acts("contrast")],
            "study hooks": [d.id for d in self.links if d.acts("study")],
            "derived defenses": [d.id for d in self.links if d.derived],
        }
        for role, users in roles.items():
            if len(users) > 1:
                raise SpecError(f"the chain {self} has several {role}: {', '.join(users)}")
        if len(self.links) > 1 and any(d.plain for d in self.links):
            raise SpecError(f"the chain {self} contains 'none', which stands alone")

    @classmethod
    def make(cls, parts: Sequence[Part]) -> Chain:
        """Build every link; raises SpecError for bad names, parameters or combinations."""
        return cls(tuple(DEFENSES.make(part) for part in parts))

    def __str__(self) -> str:
        return "+".join(str(d.part()) for d in self.links)

    @property
    def plain(self) -> bool:
        return all(d.plain for d in self.links)

    @property
    def crops(self) -> bool:
        """Whether a link crops in place of standard augmentation, which then mirrors alone."""
        return any(d.crops for d in self.links)

    @property
    def purifiers(self) -> tuple[Defense, ...]:
        return tuple(d for d in self.links if d.acts("purify"))

    @property
    def student(self) -> Defense | None:
        """The link that studies the training set, if there is one."""
        return next((d for d in self.links if d.acts("study")), None)

    @property
    def mixes(self) -> bool:
        return any(d.mixes for d in self.links)

    @property
    def derived(self) -> Defense | None:
        """The link that is computed from finished trials, if there is one."""
        return next((d for d in self.links if d.derived), None)

    @property
    def selection(self) -> Selection:
        """The images by which the derived link selects; none without one."""
        return self.derived.selection if self.derived else ""

    @property
    def cost(self) -> float:
        """Training time in units of training without any of them."""
        return math.prod(link.cost for link in self.links)

    def during(self, epoch: int) -> Chain:
        """The chain as it acts in an epoch (counted from 0)."""
        links = tuple(link.during(epoch) for link in self.links)
        return self if links == self.links else Chain(links)

    def prepare(self, model: nn.Module, study: Study) -> None:
        for link in self.links:
            link.prepare(model, study if link is self.student else {})

    @property
    def sources(self) -> tuple[Chain, ...]:
        """The chains to be trained before a derived link can be computed; none without one."""
        if self.derived is None:
            return ()
        at = self.links.index(self.derived)
        before, after = self.links[:at], self.links[at + 1 :]
        chains = []
        for parts in self.derived.sources():
            kept = (*before, *(DEFENSES.make(p) for p in parts), *after)
            chains.append(Chain(kept or (DEFENSES.make("standard"),)))
        return tuple(chains)

    def augment(self, x: Tensor, y: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        for link in self.links:
            x, y = link.augment(x, y, rng)
        return x, y

    def loss(
        self, model: nn.Module, x: Tensor, y: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        acting = next((d for d in self.links if d.acts("loss")), self.links[0])
        return acting.loss(model, x, y, rng)

    def contrast(self, framework: Framework, batch: Batch, views: Pair) -> Tensor:
        acting = next((d for d in self.links if d.acts("contrast")), self.links[0])
        return acting.contrast(framework, batch, views)

    def view(self, x: Tensor) -> Tensor:
        for link in self.links:
            x = link.view(x)
        return x

    def resolved(self) -> list[dict[str, Any]]:
        return [d.resolved() for d in self.links]
