"""ISS: the best of three simple filters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from raygrid.core.registry import Card, Combination
from raygrid.core.spec import Part
from raygrid.defenses.base import DEFENSES, Defense, Selection
from raygrid.defenses.bdr import Variant


@DEFENSES.register("iss")
@dataclass(frozen=True, kw_only=True)
class Iss(Defense):
    """The highest final test accuracy among bit-depth reduction, grayscale and JPEG.

    An oracle: the choice is made on the test set. The row names the winner.
    """

    card = Card(
        paper="Liu et al. 2023 (ISS); Yu et al. 2024 (D-VAE), tables 3 to 5",
        code="liuzrcc/ImageShortcutSqueezing",
        published={
            "cifar100/em_remrepo/iss(bdr=float)/resnet18/supervised/dvae/0": 0.6191,
            "cifar100/lsp/iss(bdr=float)/resnet18/supervised/dvae/0": 0.5306,
            "cifar100/tap_remrepo/iss(bdr=float)/resnet18/supervised/dvae/0": 0.5733,
        },
        cost="nothing: computed from three trials",
        notes="the D-VAE code reduces the bits of floats, bdr=float, the ISS code those of stored "
        "images; the published numbers are of the first",
    )
    derived: ClassVar[bool] = True

    bdr: Variant = "posterize"  # of the member that reduces bits

    def resolved(self) -> dict[str, Any]:
        members = [DEFENSES.make(part).resolved() for (part,) in self.sources()]
        return {**super().resolved(), "members": members}

    def sources(self) -> tuple[tuple[Part, ...], ...]:
        return (Part.of("bdr", variant=self.bdr),), (Part("grayscale"),), (Part("jpeg"),)

    @property
    def selection(self) -> Selection:
        return "test"

    def choose(self, finals: Sequence[float]) -> int:
        return max(range(len(finals)), key=lambda i: finals[i])

    def skip(self, combination: Combination) -> str | None:
        if combination.stops_early:
            return f"{self.id} compares final accuracies; with patience there may be none"
        return super().skip(combination)
