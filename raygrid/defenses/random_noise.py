"""Random noise on every batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from raygrid.core import draws
from raygrid.core.lazy import torch
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card, require
from raygrid.defenses.base import DEFENSES, Defense

if TYPE_CHECKING:
    from torch import Tensor


@DEFENSES.register("random_noise")
@dataclass(frozen=True, kw_only=True)
class RandomNoise(Defense):
    """Independent noise on every channel value, drawn again every epoch; clipped to [0, 1].

    `uniform`: U(-level, level); `positive`: U(0, level); `gaussian`: N(0, level^2).
    """

    card = Card(
        paper="Liu et al. (Transferable Availability Poisoning), table 8",
        published={
            "cifar10/clean/random_noise/resnet18/simclr/tp/0": 0.9049,
            "cifar10/tp/random_noise/resnet18/simclr/tp/0": 0.4034,
            "cifar10/tap/random_noise/resnet18/simclr/tp/0": 0.6196,
        },
        notes="no source gives its setting: uniform within the usual budget is raygrid's choice; "
        "APBench's ImageNet script has U(0, 8/255) in a comment. Its learner may be SimCLR or BYOL",
    )
    idle: ClassVar[tuple[Mapping[str, Scalar], ...]] = (
        {"level": 0.0},
        {"level": 0.0, "kind": "gaussian"},
    )

    level: float = 8 / 255  # half width, width or standard deviation, in [0, 1]
    kind: Literal["uniform", "positive", "gaussian"] = "uniform"

    def __post_init__(self) -> None:
        require(0 <= self.level <= 1, f"level is {self.level}, allowed are 0 to 1")

    def augment(self, x: Tensor, y: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        draw = draws.randn if self.kind == "gaussian" else draws.rand
        noise = draw(x.shape, rng, x.device)
        if self.kind == "uniform":
            noise = 2 * noise - 1
        return (x + self.level * noise).clamp_(0, 1), y
