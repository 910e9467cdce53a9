"""What a defense is: hooks into the trial, the identity by default.

A defense sees labeled images of unknown origin. No hook is given the attack, clean data or the
test set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from raygrid.data import Images
from raygrid.errors import SpecError
from raygrid.registry import Cell, Method, Registry
from raygrid.seeds import Stream
from raygrid.spec import Part


@dataclass(frozen=True)
class Workshop:
    """What `purify` works with: its randomness and where to compute."""

    stream: Stream
    device: torch.device


@dataclass(frozen=True, kw_only=True)
class Defense(Method):
    """Base of all defenses. Override the hooks that the method acts through.

    plain: the learner trains without standard augmentation (`none` alone).
    derived: computed from the history of the trial without this defense, never trained.
    learners: `all`, or `supervised` where the hook has no meaning for learners made of views
        (mixed labels, say; a `loss` hook never has).
    """

    plain: ClassVar[bool] = False
    derived: ClassVar[bool] = False
    learners: ClassVar[str] = "all"

    def purify(self, images: Images, workshop: Workshop) -> Images:
        """Change the stored training set once, before training. Made once, kept as an artifact."""
        return images

    def augment(self, x: Tensor, y: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Change a batch on the device, after standard augmentation.

        x: float32 (n, C, H, W) in [0, 1]; y: int64 (n,) or class weights float32 (n, classes).
        """
        return x, y

    def loss(
        self, model: nn.Module, x: Tensor, y: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The training loss (scalar) and the logits (n, classes) it was computed from."""
        logits = model(x)
        return nn.functional.cross_entropy(logits.float(), y), logits

    def view(self, x: Tensor) -> Tensor:
        """What happens to images at test time; float32 (n, C, H, W) in [0, 1]."""
        return x

    def select(self, history: Sequence[dict[str, float]]) -> int | None:
        """The epoch (position in `history`) whose model is kept; None keeps the last."""
        return None

    def acts(self, hook: str) -> bool:
        """Whether this defense overrides a hook."""
        return getattr(type(self), hook) is not getattr(Defense, hook)

    def skip(self, cell: Cell) -> str | None:
        if cell.views and (self.learners == "supervised" or self.acts("loss")):
            return f"{self.id} has no meaning for the learner {cell.learner.id}"
        return None


DEFENSES: Registry[Defense] = Registry("defense", Defense)


@dataclass(frozen=True)
class Chain:
    """Defenses in the order in which they act, as one defense."""

    links: tuple[Defense, ...]

    def __post_init__(self) -> None:
        for hook in ("loss", "select"):
            users = [d.id for d in self.links if d.acts(hook)]
            if len(users) > 1:
                raise SpecError(f"the chain {self} has several {hook} hooks: {', '.join(users)}")
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
    def purifiers(self) -> tuple[Defense, ...]:
        return tuple(d for d in self.links if d.acts("purify"))

    @property
    def trained(self) -> Chain:
        """The chain of the trial that has to be trained: without the derived links."""
        kept = tuple(d for d in self.links if not d.derived)
        return Chain(kept or (DEFENSES.make("standard"),))

    @property
    def selector(self) -> Defense | None:
        return next((d for d in self.links if d.acts("select")), None)

    def augment(self, x: Tensor, y: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        for link in self.links:
            x, y = link.augment(x, y, rng)
        return x, y

    def loss(
        self, model: nn.Module, x: Tensor, y: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        acting = next((d for d in self.links if d.acts("loss")), self.links[0])
        return acting.loss(model, x, y, rng)

    def view(self, x: Tensor) -> Tensor:
        for link in self.links:
            x = link.view(x)
        return x

    def resolved(self) -> list[dict[str, Any]]:
        return [d.resolved() for d in self.links]
