"""Everything that is made once and shared: datasets, surrogates, poisons, purified sets.

An artifact knows its key and what it needs before it exists; `make` turns the content of its needs
into its own. Executors only walk this graph, they do not know the kinds.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from raygrid.attacks.base import Attack, Craft, Progress, Silent, measure
from raygrid.attacks.surrogates import (
    SurrogateRecipe,
    accuracy,
    freeze,
    shortfall,
    train_surrogate,
)
from raygrid.data import Images, Poison, Target, Trigger, count_at, fingerprint, prefix
from raygrid.datasets.base import Dataset, Split
from raygrid.defenses.base import Defense, Workshop
from raygrid.errors import DataError
from raygrid.seeds import Stream
from raygrid.setups import Scene, SetupPlan
from raygrid.store import Bundle, as_state, key_of
from raygrid.training import Recipe


@dataclass(frozen=True)
class Bench:
    """Where an artifact is made: the device, the data folder, a place for checkpoints."""

    device: torch.device
    data_root: Path
    progress: Progress = field(default_factory=Silent)


@dataclass(frozen=True)
class Artifact(ABC):
    """Something with a content key that is made from other artifacts.

    shared: whether several jobs read it, so that a copy in a cluster's memory pays.
    """

    kind: ClassVar[str]
    shared: ClassVar[bool] = True

    @property
    def gpu(self) -> bool:
        """Whether making it is worth a GPU."""
        return True

    @property
    @abstractmethod
    def key(self) -> str: ...

    @abstractmethod
    def needs(self) -> tuple[Artifact, ...]:
        """Direct needs, in the order in which `make` gets them."""

    @abstractmethod
    def make(self, inputs: Sequence[Bundle], bench: Bench) -> Bundle: ...

    @property
    @abstractmethod
    def label(self) -> str:
        """A few words for a person."""

    @property
    def shards(self) -> int:
        """Into how many units that can be made alone it falls; 0 if it is made in one piece."""
        return 0

    @property
    def spent(self) -> tuple[Artifact, ...]:
        """Needs that are of no more use once it is made."""
        return ()


@dataclass(frozen=True)
class DatasetArtifact(Artifact):
    """A decoded dataset, with a clean validation part held out before anything else happens."""

    dataset: Dataset
    source: str
    validation: float = 0.0
    kind: ClassVar[str] = "dataset"

    @property
    def gpu(self) -> bool:
        return False

    @property
    def key(self) -> str:
        return key_of([self.kind, self.dataset.resolved(), self.source, self.validation])

    @property
    def label(self) -> str:
        return str(self.dataset.part())

    @property
    def train_size(self) -> int:
        """How many training images are left beside the validation part."""
        return self.dataset.train_size - round(self.dataset.train_size * self.validation)

    def needs(self) -> tuple[Artifact, ...]:
        return ()

    def make(self, inputs: Sequence[Bundle], bench: Bench) -> Bundle:
        split = self.dataset.load(bench.data_root)
        train, held = hold_out(split.train, self.validation)
        parts = {"train": train, "test": split.test, "val": held}
        tensors = {f"{p}_pixels": i.pixels for p, i in parts.items() if i is not None}
        tensors |= {f"{p}_labels": i.labels for p, i in parts.items() if i is not None}
        facts = {"classes": train.classes, "fingerprint": fingerprint(*tensors.values())}
        return Bundle(tensors, facts)


def hold_out(train: Images, share: float) -> tuple[Images, Images | None]:
    """Split off a random `share` of the images; always the same ones for the same size."""
    if share == 0:
        return train, None
    generator = Stream("validation", (len(train),)).generator()
    order = torch.randperm(len(train), generator=generator)
    cut = round(len(train) * share)
    return train.rows(order[cut:].sort().values), train.rows(order[:cut].sort().values)


@dataclass(frozen=True)
class World:
    """A dataset bundle as `Images`; `val` is None without a validation part.

    scene: the set-up of a trial with a target; `train` is then what is left for the victim.
    """

    train: Images
    test: Images
    val: Images | None
    scene: Scene | None = None

    @classmethod
    def of(cls, bundle: Bundle, setup: SetupPlan | None = None) -> World:
        def part(name: str) -> Images | None:
            if f"{name}_pixels" not in bundle.tensors:
                return None
            tensors, print_ = bundle.tensors, str(bundle.facts["fingerprint"])
            pixels, labels = tensors[f"{name}_pixels"], tensors[f"{name}_labels"]
            return Images(pixels, labels, int(bundle.facts["classes"]), f"{print_}:{name}")

        train, test = part("train"), part("test")
        if train is None or test is None:
            raise DataError("a stored dataset lacks its training or test part")
        if setup is None:
            return cls(train, test, part("val"))
        scene = setup.scene(train, test)
        return cls(scene.train, test, part("val"), scene)

    @property
    def split(self) -> Split:
        return Split(self.train, self.test)


@dataclass(frozen=True)
class SurrogateArtifact(Artifact):
    """The weights of a surrogate."""

    data: DatasetArtifact
    content: str
    recipe: SurrogateRecipe
    seed: int
    kind: ClassVar[str] = "surrogate"

    @property
    def key(self) -> str:
        return key_of([self.kind, self.content, self.recipe.resolved(), self.seed])

    @property
    def label(self) -> str:
        return f"{self.recipe.architecture} on {self.data.label}"

    def needs(self) -> tuple[Artifact, ...]:
        return (self.data,)

    def make(self, inputs: Sequence[Bundle], bench: Bench) -> Bundle:
        world = World.of(inputs[0])
        stream = Stream("surrogate", (self.data.dataset.id, self.seed))
        network = train_surrogate(self.recipe, world.train, stream, bench.device, bench.progress)
        last = network[-1] if isinstance(network, nn.ModuleList) else network
        reached = accuracy(last, world.test.to(bench.device))
        mark = shortfall(self.data.dataset.id, self.recipe.architecture, reached)
        facts = {"test_acc": reached, "marks": [mark] if mark else []}
        return Bundle({k: v.cpu() for k, v in network.state_dict().items()}, facts)

    def blank(self) -> Images:
        """One image of the size and class count of the data that the surrogate was trained on."""
        data = self.data.dataset
        pixels = torch.zeros(1, 3, data.image_size, data.image_size, dtype=torch.uint8)
        return Images(pixels, torch.zeros(1, dtype=torch.int64), data.classes)

    def network(self, bundle: Bundle, train: Images, device: torch.device) -> nn.Module:
        """The trained surrogate on the device, frozen."""
        network = self.recipe.shell(train, device)
        network.load_state_dict(as_state(bundle.tensors))
        return freeze(network)


@dataclass(frozen=True)
class Pretraining:
    """How and on what a protocol pre-trains extractors; each is made once, for every seed."""

    data: DatasetArtifact
    content: str
    recipe: Recipe

    def extractor(self, architecture: str) -> SurrogateArtifact:
        recipe = SurrogateRecipe(architecture, architecture, self.recipe, normalization="data")
        return SurrogateArtifact(self.data, self.content, recipe, seed=0)

    def resolved(self) -> dict[str, Any]:
        return {"content": self.content, "recipe": asdict(self.recipe)}


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
    def surrogates(self) -> tuple[SurrogateArtifact, ...]:
        seed = 0 if self.attack.one_surrogate else self.seed
        own = (SurrogateArtifact(self.data, self.content, r, seed) for r in self.attack.needs())
        if self.pretraining is None:
            return tuple(own)
        return (*own, *map(self.pretraining.extractor, self.attack.extractors))

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
        return self.attack.units(count_at(self.ratio, self.data.train_size))

    def needs(self) -> tuple[Artifact, ...]:
        return (self.data, *self.surrogates)

    @property
    def rows(self) -> Stream:
        """The stream that says which rows are poisoned at a ratio."""
        return Stream("ratio", (self.data.dataset.id, self.seed))

    def craft(self, inputs: Sequence[Bundle], bench: Bench, units: range | None = None) -> Craft:
        """The attack's working place over the content of `needs`."""
        world = World.of(inputs[0], self.setup)
        trained = zip(self.surrogates, inputs[1:], strict=True)
        networks = {
            s.recipe.name: s.network(
                b, world.train if s.data == self.data else s.blank(), bench.device
            )
            for s, b in trained
        }
        stream = Stream("poison", (self.data.dataset.id, self.attack.id, self.seed))
        owned = None if self.ratio == 1 else prefix(len(world.train), self.ratio, self.rows)
        return Craft(
            stream, bench.device, networks, bench.progress, owned, units, scene=world.scene
        )

    def make(self, inputs: Sequence[Bundle], bench: Bench) -> Bundle:
        return self.make_units(inputs, bench, None)

    def make_units(self, inputs: Sequence[Bundle], bench: Bench, units: range | None) -> Bundle:
        """The poison of a range of units, or of all."""
        train = World.of(inputs[0], self.setup).train
        started = time.perf_counter()
        craft = self.craft(inputs, bench, units)
        poison = self.attack.poison(train, craft)
        seconds = time.perf_counter() - started
        marks = sorted({mark for need in inputs[1:] for mark in need.facts.get("marks", ())})
        facts = {"seconds": seconds, "attack": craft.facts, "marks": marks, **_size(train, poison)}
        return poison_bundle(poison, facts)


def _size(train: Images, poison: Poison) -> dict[str, Any]:
    """Mean and largest size of the change in every norm."""
    if len(poison.indices) == 0 or poison.withheld:
        return {"size": {}}
    clean = train.pixels[poison.indices]
    sizes = {norm: measure(clean, poison.pixels, norm) for norm in ("linf", "l2", "l0")}
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


@dataclass(frozen=True)
class PurifiedArtifact(Artifact):
    """A training set after one purifying link of a defense chain."""

    poison: PoisonArtifact
    ratio: float
    links: tuple[Defense, ...]
    seed: int
    kind: ClassVar[str] = "purified"

    @property
    def gpu(self) -> bool:
        return self.links[-1].purify_cost > 0

    @property
    def before(self) -> PurifiedArtifact | None:
        """The same set one link earlier, None for the first link."""
        if len(self.links) == 1:
            return None
        return PurifiedArtifact(self.poison, self.ratio, self.links[:-1], self.seed)

    @property
    def key(self) -> str:
        links = [d.resolved() for d in self.links]
        return key_of([self.kind, self.poison.key, self.ratio, links, self.seed])

    @property
    def label(self) -> str:
        return f"{'+'.join(d.id for d in self.links)} of {self.poison.label}"

    def needs(self) -> tuple[Artifact, ...]:
        before = self.before
        return (before,) if before else (self.poison.data, self.poison)

    def make(self, inputs: Sequence[Bundle], bench: Bench) -> Bundle:
        if self.before:
            stored = inputs[0]
            images = Images(
                stored.tensors["pixels"], stored.tensors["labels"], stored.facts["classes"]
            )
        else:
            world = World.of(inputs[0], self.poison.setup)
            images, _ = mix(world, poison_of(inputs[1]), self.poison, self.ratio)
        # The stream must not know the attack: the same images are purified the same way.
        stream = Stream("purify", (self.poison.data.dataset.id, self.links[-1].id, self.seed))
        started = time.perf_counter()
        purified = purify(self.links[-1], images, Workshop(stream, bench.device))
        facts = {"classes": images.classes, "seconds": time.perf_counter() - started}
        return Bundle({"pixels": purified.pixels.cpu(), "labels": purified.labels.cpu()}, facts)


def purify(link: Defense, images: Images, workshop: Workshop) -> Images:
    """What a purifier makes of a set; raises one DataError that names it if that is no such set."""
    try:
        purified = link.purify(images, workshop)
    except DataError as error:
        raise DataError(f"{link.id}: {error}") from error
    check_purified(images, purified, link)
    return purified


def check_purified(before: Images, after: Images, link: Defense) -> None:
    """A purifier keeps shape, order and labels; raises DataError otherwise."""
    if not isinstance(after, Images):
        raise DataError(f"{link.id} returned {type(after).__name__}, expected Images")
    if after.pixels.shape != before.pixels.shape:
        shape = tuple(after.pixels.shape)
        raise DataError(f"{link.id} returned images {shape}, expected {tuple(before.pixels.shape)}")
    if not torch.equal(after.labels.cpu(), before.labels.cpu()):
        raise DataError(f"{link.id} changed labels")


def mix(
    world: World, poison: Poison, artifact: PoisonArtifact, ratio: float
) -> tuple[Images, Tensor]:
    """The training set at a poison ratio, and the mask of poisoned rows."""
    share = ratio if artifact.ratio == 1 else 1.0  # it was made for the very rows of this ratio
    return poison.overlay(world.train, share, artifact.rows)
