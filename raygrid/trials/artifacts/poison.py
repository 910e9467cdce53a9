"""What an attack makes of a dataset."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from raygrid.attacks.base import Attack, AttackContext
from raygrid.core.budget import NORMS
from raygrid.core.enforcement import size_of_change
from raygrid.core.hashing import key_of
from raygrid.core.images import Images, Poison, Target, Trigger, count_at, left_alone, prefix
from raygrid.core.lazy import nn, torch
from raygrid.core.seeds import Stream
from raygrid.core.speed import DRAW_SECONDS, Speed
from raygrid.protocols.setups import SetupPlan
from raygrid.storage.store import Bundle
from raygrid.trials.artifacts.base import Artifact, BuildContext
from raygrid.trials.artifacts.dataset import LEAST_MAKING_SECONDS, DatasetArtifact, World
from raygrid.trials.artifacts.surrogate import Pretraining, SurrogateArtifact

if TYPE_CHECKING:
    from torch import Tensor

_ROWS = 1000


@dataclass(frozen=True)
class PoisonArtifact(Artifact):
    """What an attack makes of a dataset, at a set-up where the trial has one.

    ratio: the share of the rows that it makes; below 1 only where the attack has to know.
    """

    data: DatasetArtifact
    content: str
    attack: Attack
    seed: int
    ratio: float = 1.0
    setup: SetupPlan | None = None
    pretraining: Pretraining | None = None
    kind: ClassVar[str] = "poison"

    @property
    def instant(self) -> bool:
        return self.attack.instant

    @property
    def surrogates(self) -> tuple[SurrogateArtifact, ...]:
        seed = 0 if self.attack.one_surrogate else self.seed
        own = (SurrogateArtifact(self.data, self.content, r, seed) for r in self.attack.needs())
        if self.pretraining is None:
            return tuple(own)
        return (*own, *map(self.pretraining.extractor, self.attack.extractors))

    @property
    def base(self) -> PoisonArtifact | None:
        """The poison of the whole set that the attack starts from, if it starts from one."""
        base = self.attack.base_attack
        return None if base is None else replace(self, attack=base, ratio=1.0)

    @property
    def key(self) -> str:
        seed = self.seed if self.attack.seeded else None
        surrogates = [s.key for s in self.surrogates]
        parts: list[Any] = [self.kind, self.content, self.attack.resolved(), surrogates, seed]
        if self.ratio != 1:
            parts.append(self.ratio)
        if self.setup is not None:
            parts.append(self.setup.resolved())
        return key_of(parts)

    @property
    def label(self) -> str:
        share = "" if self.ratio == 1 else f"@{self.ratio}"
        return f"{self.attack.part()}{share} on {self.data.label}"

    @property
    def shards(self) -> int:
        if self.setup is not None:  # its training set is not the whole one
            return 0
        return self.attack.units(count_at(self.ratio, self.data.train_size))

    @property
    def pool_size(self) -> int:
        """How many images the training set has that it belongs to."""
        if self.setup is None:
            return self.data.train_size
        return self.setup.rule.pool_size(self.data.train_size, self.data.dataset.classes)

    @property
    def rows_made(self) -> int:
        """How many rows of that training set the attack makes."""
        if self.setup is not None and self.attack.on_target:
            return self.setup.rule.poisons
        return count_at(self.ratio, self.pool_size)

    @property
    def nbytes(self) -> int:
        return self.attack.poison_nbytes(self.rows_made, self.data.dataset.image_size)

    @property
    def held_nbytes(self) -> int:
        return int(self.attack.holds * self.rows_made * self.data.pixel_nbytes)

    def seconds(self, speed: Speed) -> float:
        """The time of the passes through every network of the attack, in float32.

        At least that of the numbers that are drawn for them.
        """
        size = self.data.train_size
        share = self.rows_made / size
        work = (
            self.data.pass_seconds(name, passes * share, speed.of_float32)
            for name, passes in self.attack.work(size)
        )
        draws = self.rows_made * self.attack.draws(self.data.dataset.image_size)
        return LEAST_MAKING_SECONDS + max(sum(work), DRAW_SECONDS * draws)

    def needs(self) -> tuple[Artifact, ...]:
        """The data and the surrogates; with a base that one, which needs the surrogates itself."""
        return (self.data, *self.surrogates) if self.base is None else (self.data, self.base)

    @property
    def ratio_stream(self) -> Stream:
        """The stream that says which rows are poisoned at a ratio."""
        return Stream("ratio", (self.data.dataset.id, self.seed))

    def attack_context(
        self, inputs: Sequence[Bundle], context: BuildContext, units: range | None = None
    ) -> AttackContext:
        """The attack's working place over the content of `needs`."""
        world = World.of(inputs[0], self.setup)
        owned = None if self.ratio == 1 else prefix(len(world.train), self.ratio, self.ratio_stream)
        work = AttackContext(
            Stream("poison", (self.data.dataset.id, self.attack.id, self.seed)),
            context.device,
            progress=context.progress,
            owned=owned,
            units=units,
            scene=world.scene,
            test=world.test if self.attack.sees_test else None,
        )
        if self.base is not None:
            work.base, _ = mix(world, poison_of(inputs[1]), self.base, 1.0)
        else:
            work.surrogates = self._networks(world, inputs[1:], context.device)
        return work

    def _networks(
        self, world: World, trained: Sequence[Bundle], device: torch.device
    ) -> dict[str, nn.Module]:
        """Networks of `surrogates` by their recipes' names; trained: what is known of them."""
        return {
            s.recipe.name: s.network(b, world.train if s.data == self.data else s.blank(), device)
            for s, b in zip(self.surrogates, trained, strict=True)
        }

    def make(self, inputs: Sequence[Bundle], context: BuildContext) -> Bundle:
        return self.make_units(inputs, context, None)

    def make_units(
        self, inputs: Sequence[Bundle], context: BuildContext, units: range | None
    ) -> Bundle:
        """The poison of a range of units, or of all."""
        train = World.of(inputs[0], self.setup).train
        started = time.perf_counter()
        attacked = self.attack_context(inputs, context, units)
        with left_alone(train, self.attack.id, "clean images"):
            poison = self.attack.poison(train, attacked)
        seconds = time.perf_counter() - started
        needed = (mark for need in inputs[1:] for mark in need.facts.get("marks", ()))
        marks = sorted({*needed, *attacked.marks})
        facts = {
            "seconds": seconds,
            "attack": attacked.facts,
            "marks": marks,
            **_size(train, poison),
        }
        return poison_bundle(poison, facts)


def _size(train: Images, poison: Poison) -> dict[str, Any]:
    """Mean and largest size of the change in every norm."""
    if len(poison.indices) == 0 or poison.withheld:
        return {"size": {}}
    sizes = {norm: torch.empty(len(poison.indices)) for norm in NORMS}
    # Part by part: the rows of the clean set are a copy of it.
    for start in range(0, len(poison.indices), _ROWS):
        part = slice(start, start + _ROWS)
        clean = train.pixels[poison.indices[part]]
        for norm, size in sizes.items():
            size[part] = size_of_change(clean, poison.pixels[part], norm)
    return {"size": {n: {"mean": float(s.mean()), "max": float(s.max())} for n, s in sizes.items()}}


def poison_bundle(poison: Poison, facts: Mapping[str, Any]) -> Bundle:
    """A poison as named tensors and facts."""
    tensors: dict[str, Tensor] = {
        "indices": poison.indices,
        "pixels": poison.pixels,
        "labels": poison.labels,
    }
    facts = {
        **facts,
        "targets": [[t.index, t.true_label, t.wanted] for t in poison.targets],
        "withheld": poison.withheld,
    }
    if poison.trigger is not None:
        tensors["trigger"] = poison.trigger.pattern
        facts["trigger_at"] = [poison.trigger.left, poison.trigger.top]
    return Bundle(tensors, facts)


def poison_of(bundle: Bundle) -> Poison:
    """The inverse of `poison_bundle`."""
    t, facts = bundle.tensors, bundle.facts
    trigger = Trigger(t["trigger"], *facts["trigger_at"]) if "trigger" in t else None
    targets = tuple(Target(*values) for values in facts["targets"])
    return Poison(t["indices"], t["pixels"], t["labels"], targets, trigger, facts["withheld"])


def mix(
    world: World, poison: Poison, artifact: PoisonArtifact, ratio: float
) -> tuple[Images, Tensor]:
    """The training set at a poison ratio, and the mask of poisoned rows."""
    share = ratio if artifact.ratio == 1 else 1.0  # it was made for the very rows of this ratio
    return poison.overlay(world.train, share, artifact.ratio_stream)
