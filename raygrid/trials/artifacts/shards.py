"""One poison made by several jobs: its units can be made alone, so each job makes some of them.

The pieces are artifacts of their own until they are joined; the poison's key and its bytes are
those of a poison made in one piece.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from raygrid.core.lazy import torch
from raygrid.core.speed import Speed
from raygrid.storage.store import Bundle
from raygrid.trials.artifacts import Artifact, BuildContext, PoisonArtifact
from raygrid.trials.artifacts.dataset import LEAST_MAKING_SECONDS


def split(artifact: Artifact, count: int) -> Artifact:
    """The same artifact from up to `count` shards; itself if it cannot be divided."""
    if not isinstance(artifact, PoisonArtifact):
        return artifact
    count = min(count, -(-artifact.shards // artifact.attack.grain))
    return Joined(artifact, count) if count > 1 else artifact


def begun_counts(names: Iterable[str]) -> dict[str, int]:
    """Into how many shards each poison was divided of which there are some, by its key.

    names: of shards in a store and of their checkpoints. Of several counts that with most of them.
    """
    found: Counter[tuple[str, int]] = Counter()
    for name in names:
        match = re.match(r"(\w+)-\d+of(\d+)(?:\.|$)", name)
        if match:
            found[match[1], int(match[2])] += 1
    return {key: count for (key, count), _ in reversed(found.most_common())}


def ranges(units: int, count: int, grain: int) -> list[range]:
    """About equal ranges of 0..units-1 whose ends are multiples of `grain`, except the last."""
    grains = -(-units // grain)
    edges = [min(units, grains * number // count * grain) for number in range(count + 1)]
    return [range(start, stop) for start, stop in itertools.pairwise(edges)]


@dataclass(frozen=True)
class Shard(Artifact):
    """Piece `number` of `of` pieces of a poison."""

    poison: PoisonArtifact
    number: int
    of: int
    kind: ClassVar[str] = "shard"
    shared: ClassVar[bool] = False

    @property
    def key(self) -> str:
        return f"{self.poison.key}-{self.number + 1}of{self.of}"

    @property
    def label(self) -> str:
        return f"{self.number + 1} of {self.of} of {self.poison.label}"

    @property
    def units(self) -> range:
        """The units of the attack that it makes."""
        return ranges(self.poison.shards, self.of, self.poison.attack.grain)[self.number]

    @property
    def share(self) -> float:
        """The part of the poison's units that it makes."""
        return len(self.units) / self.poison.shards

    @property
    def nbytes(self) -> int:
        return round(self.share * self.poison.nbytes)

    def seconds(self, speed: Speed) -> float:
        return self.share * self.poison.seconds(speed)

    def needs(self) -> tuple[Artifact, ...]:
        return self.poison.needs()

    def make(self, inputs: Sequence[Bundle], context: BuildContext) -> Bundle:
        return self.poison.make_units(inputs, context, self.units)


@dataclass(frozen=True)
class Joined(Artifact):
    """A poison that is put together from shards."""

    poison: PoisonArtifact
    count: int
    kind: ClassVar[str] = "poison"
    gpu: ClassVar[bool] = False  # it copies arrays

    @property
    def key(self) -> str:
        return self.poison.key

    @property
    def label(self) -> str:
        return self.poison.label

    @property
    def nbytes(self) -> int:
        return self.poison.nbytes

    def seconds(self, speed: Speed) -> float:
        return LEAST_MAKING_SECONDS

    def needs(self) -> tuple[Artifact, ...]:
        return tuple(Shard(self.poison, number, self.count) for number in range(self.count))

    @property
    def spent(self) -> tuple[Artifact, ...]:
        return self.needs()

    def make(self, inputs: Sequence[Bundle], context: BuildContext) -> Bundle:
        return join_pieces(inputs)


def join_pieces(pieces: Sequence[Bundle]) -> Bundle:
    """One poison from its pieces, rows ascending."""
    rows = torch.cat([piece.tensors["indices"] for piece in pieces])
    order = rows.argsort()
    names = pieces[0].tensors
    tensors = {n: torch.cat([piece.tensors[n] for piece in pieces])[order] for n in names}
    facts = {name: fact for name, fact in pieces[0].facts.items() if name != "label"}
    facts["seconds"] = sum(piece.facts["seconds"] for piece in pieces)
    facts["size"] = {norm: _overall(norm, pieces) for norm in facts["size"]}
    return Bundle(tensors, facts)


def _overall(norm: str, pieces: Sequence[Bundle]) -> dict[str, Any]:
    """Mean and largest size of the change over all pieces."""
    sizes = [(piece.facts["size"][norm], len(piece.tensors["labels"])) for piece in pieces]
    total = sum(count for _, count in sizes)
    mean = sum(size["mean"] * count for size, count in sizes) / total
    return {"mean": mean, "max": max(size["max"] for size, _ in sizes)}
