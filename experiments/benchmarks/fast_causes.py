"""Why the fast victim differs from the papers': its protocol with one thing changed at a time.

    raygrid run "cifar10/ops/standard/small_airbench/supervised/fast_unsmoothed(rung=minutes)/0" \\
        --import experiments/benchmarks/fast_causes.py

Length and batch are parameters of `fast` itself: `fast(rung=minutes, epochs=12)`, `batch_size=250`.
`fast_plain` changes all but these two. Every one of these is a protocol of its own, so tables never
mix its numbers with those of `fast`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from raygrid.core.registry import Card
from raygrid.protocols import PROTOCOLS, Protocol
from raygrid.protocols.fast import Fast

FAMILY = ("airbench", "small_airbench")
KEPT = ("batch_size", "flips", "smoothing")
"""What of the family's recipe has nothing to do with its optimizer."""
CARD = Card(paper="none; `fast` with one thing changed, to look for causes")


@PROTOCOLS.register("fast_unsmoothed")
@dataclass(frozen=True, kw_only=True)
class Unsmoothed(Fast):
    """Labels are not smoothed."""

    card = CARD
    by_architecture: ClassVar[Mapping[str, Mapping[str, object]]] = {
        name: {**changes, "smoothing": 0.0} for name, changes in Fast.by_architecture.items()
    }


@PROTOCOLS.register("fast_cropped")
@dataclass(frozen=True, kw_only=True)
class Cropped(Fast):
    """Images are cropped from a black border of four pixels, as in the papers."""

    card = CARD
    augmentations: ClassVar[Mapping[str, str]] = {}


@PROTOCOLS.register("fast_sgd")
@dataclass(frozen=True, kw_only=True)
class OneCycle(Fast):
    """The `airbench` family has the optimizer of every other network: SGD over one cycle.

    Its labels, flips and batches stay.
    """

    card = CARD
    by_architecture: ClassVar[Mapping[str, Mapping[str, object]]] = {
        **Protocol.by_architecture,
        **{name: {k: Fast.by_architecture[name][k] for k in KEPT} for name in FAMILY},
    }


@PROTOCOLS.register("fast_plain")
@dataclass(frozen=True, kw_only=True)
class Plain(Fast):
    """The `airbench` family is trained as every other network, on crops from a black border."""

    card = CARD
    augmentations: ClassVar[Mapping[str, str]] = {}
    by_architecture: ClassVar[Mapping[str, Mapping[str, object]]] = Protocol.by_architecture
