"""The protocol of victims that train on real images in minutes: for screening."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from raygrid.core.registry import Card
from raygrid.nn.recipes import Group, Recipe
from raygrid.protocols.base import PROTOCOLS, SUPERVISED, Protocol

_MUON_RATE = 0.24
"""Of the convolutions; the rates beside it move along if a spec sets another one."""
_DECAY = 2e-6
"""Weight decay times the rate, for a loss summed over the batch."""


def _beside(names: str, lr: float, until: float = 1.0) -> Group:
    """Parameters beside the convolutions: Nesterov's SGD on the loss summed over the batch."""
    return Group(names, lr, 0.85, _DECAY / lr, until, per_image=True)


_CYCLE = Recipe(
    epochs=8,
    batch_size=512,
    lr=0.4,
    nesterov=True,
    schedule="one_cycle",
    normalize=True,
    stepwise=True,
    min_steps=160,
)
"""Of every network but those below."""
_MUON: Mapping[str, object] = {
    "batch_size": 2000,
    "lr": _MUON_RATE,
    "optimizer": "muon",
    "momentum": 0.6,
    "weight_decay": 0.0,
    "schedule": "linear",
    "groups": (
        _beside("body.0.bias", 0.053, until=3 / 8),
        _beside("*.bias", 0.053),
        _beside("head.*", 0.67),
        Group("body.*.weight", _MUON_RATE, 0.6, orthogonal=True),
    ),
    "smoothing": 0.2,
    "flips": "alternating",
}
"""Of `airbench`, as its source trains it."""
_FAMILY = ("airbench", "small_airbench")
_RUNGS: Mapping[tuple[str, bool], Mapping[str, int]] = {
    ("minutes", True): {"epochs": 6, "batch_size": 500},
    ("minutes", False): {"epochs": 6},
    ("resnet18", False): {"epochs": 24},
}
"""What a rung changes, by whether the network is one of the family."""


@PROTOCOLS.register("fast")
@dataclass(frozen=True, kw_only=True)
class Fast(Protocol):
    """Screening: seconds of a GPU or minutes of a CPU for a victim on real images.

    rung: `full` is meant for `airbench`, 8 epochs; `minutes` for `small_airbench` on a CPU core;
    `resnet18` trains any network for 24 epochs of one cycle, for a GPU. Smaller sets are trained in
    batches so small that there are at least 160 steps.
    """

    card = Card(
        paper="none; raygrid's own, after Jordan 2024 (94% on CIFAR-10 in 3.29 Seconds on a "
        "Single GPU)",
        code="KellerJordan/cifar10-airbench@f1c599c",
        cost="rung=minutes, small_airbench: about 190 processor seconds of an AMD EPYC core for "
        "CIFAR-10",
        notes="clean accuracy on CIFAR-10 as JPEG files, rung=minutes with small_airbench: 85.1 ± "
        "0.3 % of five seeds; full with airbench: 89.5 % (89.5 and 89.4 with two seeds, 20 minutes "
        "of a core each), where the source's own program is at 89.9 (on the official images at "
        "94.0 with six views a test image, on these at 90.7). resnet18: OPS alone was measured, "
        "for 8 epochs. "
        "Chosen by clean accuracy alone. A poison's effect is that of a short training with "
        "label smoothing: its numbers stand in no table of another protocol",
    )
    tier: ClassVar[str] = "screening"
    recipes: ClassVar[Mapping[str, Recipe]] = {SUPERVISED: _CYCLE}
    by_architecture: ClassVar[Mapping[str, Mapping[str, object]]] = {
        **Protocol.by_architecture,
        **dict.fromkeys(_FAMILY, _MUON),
    }
    augmentations: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("cifar10", "cifar100"), "shift_flip"
    )

    rung: Literal["full", "minutes", "resnet18"] = "full"

    def recipe(
        self,
        learner: str,
        dataset: str,
        image_size: int,
        defenses: tuple[str, ...] = (),
        architecture: str = "",
    ) -> Recipe:
        family = architecture in _FAMILY and self.rung != "resnet18"
        named = "" if architecture in _FAMILY and not family else architecture
        made = super().recipe(learner, dataset, image_size, defenses, named)
        changes = _RUNGS.get((self.rung, family), {})
        made = made.with_(**{k: v for k, v in changes.items() if getattr(self, k) is None})
        moved = (replace(g, lr=g.lr * made.lr / _MUON_RATE) for g in made.groups)
        return made.with_(groups=tuple(moved))
