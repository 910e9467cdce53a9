"""The fast network with fewer channels, for minutes on one CPU core."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from raygrid.architectures.airbench import AirBench
from raygrid.architectures.base import ARCHITECTURES
from raygrid.core.registry import Card


@ARCHITECTURES.register("small_airbench")
@dataclass(frozen=True, kw_only=True)
class SmallAirBench(AirBench):
    """`airbench` with other widths."""

    card = Card(
        paper="Jordan 2024 (94% on CIFAR-10 in 3.29 Seconds on a Single GPU); widths are ours",
        code="KellerJordan/cifar10-airbench@f1c599c",
        notes="widths chosen by clean accuracy within four minutes of one core",
    )
    gflop: ClassVar[float] = 0.0482
    megabytes: ClassVar[float] = 1.18

    widths: str = "32:96:96"  # channels of the three blocks
