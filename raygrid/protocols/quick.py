"""The protocol that papers' ones are stood in by where minutes on a CPU have to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from raygrid.core.literals import Scalar
from raygrid.core.registry import Card
from raygrid.nn.recipes import PROBING, Probing, Recipe
from raygrid.protocols.base import PROTOCOLS, SUPERVISED, Protocol

_QUICK_VIEWS = Recipe(
    epochs=8,
    batch_size=64,
    lr=2e-3,
    optimizer="adamw",
    weight_decay=1e-4,
    drop_last=True,
)
"""Contrastive learning that shows something on a small network after 500 steps."""


@PROTOCOLS.register("quick")
@dataclass(frozen=True, kw_only=True)
class Quick(Protocol):
    """Minutes on a CPU: shows the phenomenon, not the papers' numbers."""

    card = Card(
        paper="none; raygrid's own",
        notes="one-cycle rate as in small-scale checks; the "
        "contrastive rates and crops were chosen for small_cnn on photo_digits",
    )
    tier: ClassVar[str] = "quick"
    recipes: ClassVar[Mapping[str, Recipe]] = {
        SUPERVISED: Recipe(epochs=12, batch_size=64, nesterov=True, schedule="one_cycle"),
        **dict.fromkeys(("supcl", "simclr", "byol", "moco", "simsiam"), _QUICK_VIEWS),
    }
    settings: ClassVar[Mapping[str, Mapping[str, Scalar]]] = {
        "supcl": {"crop_min": 0.5},
        "simclr": {"crop_min": 0.5, "temperature": 0.2},
        "byol": {"crop_min": 0.5, "hidden": 512, "output": 128, "momentum": 0.95},
        "moco": {"crop_min": 0.5, "queue": 1024},
        "simsiam": {"crop_min": 0.5, "hidden": 512, "predictor": 128},
    }
    probe: ClassVar[Probing] = Probing(
        PROBING.recipe.with_(epochs=60, batch_size=256, milestones=(36, 45, 54))
    )
