"""Everything that is made once and shared: datasets, surrogates, poisons, purified sets.

An artifact knows its key and what it needs before it exists; `make` turns the content of its needs
into its own. Executors only walk this graph, they do not know the kinds.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from raygrid.attacks.base import Attack, Craft, Progress, Silent, measure
from raygrid.attacks.surrogates import SurrogateRecipe, accuracy, freeze, train_surrogate
from raygrid.data import Images, Poison, Target, Trigger, fingerprint
from raygrid.datasets.base import Dataset, Split
from raygrid.defenses.base import Defense, Workshop
from raygrid.errors import DataError
from raygrid.seeds import Stream
from raygrid.store import Bundle, as_state, key_of


@dataclass(frozen=True)
class Bench:
    """Where an artifact is made: the device, the data folder, a place for checkpoints."""

    device: torch.device
    data_root: Path
    progress: Progress = field(default_factory=Silent)


@dataclass(frozen=True)
class Artifact(ABC):
    """Something with a content key that is made from other artifacts."""

    kind: ClassVar[str]

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
        """How many samples may be split over tasks; 0 if the artifact is made in one piece."""
        return 0


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
    """A dataset bundle as `Images`; `val` is None without a validation part."""

    train: Images
    test: Images
    val: Images | None

    @classmethod
    def of(cls, bundle: Bundle) -> World:
        def part(name: str) -> Images | None:
            if f"{name}_pixels" not in bundle.tensors:
                return None
            tensors, print_ = bundle.tensors, str(bundle.facts["fingerprint"])
            pixels, labels = tensors[f"{name}_pixels"], tensors[f"{name}_labels"]
            return Images(pixels, labels, int(bundle.facts["classes"]), f"{print_}:{name}")

        train, test = part("train"), part("test")
        if train is None or test is None:
            raise DataError("a stored dataset lacks its training or test part")
        return cls(train, test, part("val"))

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
        network = train_surrogate(self.recipe, world.train, stream, bench.device)
        last = network[-1] if isinstance(network, nn.ModuleList) else network
        facts = {"test_acc": accuracy(last, world.test.to(bench.device))}
        return Bundle({k: v.cpu() for k, v in network.state_dict().items()}, facts)

    def network(self, bundle: Bundle, train: Images, device: torch.device) -> nn.Module:
        """The trained surrogate on the device, frozen."""
        network = self.recipe.shell(train, device)
        network.load_state_dict(as_state(bundle.tensors))
        return freeze(network)


@dataclass(frozen=True)
class PoisonArtifact(Artifact):
    """What an attack makes of a dataset."""

    data: DatasetArtifact
    content: str
    attack: Attack
    seed: int
    kind: ClassVar[str] = "poison"

    @property
    def surrogates(self) -> tuple[SurrogateArtifact, ...]:
        recipes = self.attack.needs()
        return tuple(SurrogateArtifact(self.data, self.content, r, self.seed) for r in recipes)

    @property
    def key(self) -> str:
        seed = self.seed if self.attack.seeded else None
        surrogates = [s.key for s in self.surrogates]
        return key_of([self.kind, self.content, self.attack.resolved(), surrogates, seed])

    @property
    def label(self) -> str:
        return f"{self.attack.part()} on {self.data.label}"

    @property
    def shards(self) -> int:
        return self.data.train_size if self.attack.sharded else 0

    def needs(self) -> tuple[Artifact, ...]:
        return (self.data, *self.surrogates)

    def craft(self, inputs: Sequence[Bundle], bench: Bench, rows: range | None = None) -> Craft:
        """The attack's working place over the content of `needs`."""
        train = World.of(inputs[0]).train
        trained = zip(self.surrogates, inputs[1:], strict=True)
        networks = {s.recipe.name: s.network(b, train, bench.device) for s, b in trained}
        stream = Stream("poison", (self.data.dataset.id, self.attack.id, self.seed))
        return Craft(stream, bench.device, networks, bench.progress, rows)

    def make(self, inputs: Sequence[Bundle], bench: Bench) -> Bundle:
        return self.make_rows(inputs, bench, None)

    def make_rows(self, inputs: Sequence[Bundle], bench: Bench, rows: range | None) -> Bundle:
        """The poison of a range of rows; `join` puts ranges together."""
        train = World.of(inputs[0]).train
        started = time.perf_counter()
        craft = self.craft(inputs, bench, rows)
        poison = self.attack.poison(train, craft)
        seconds = time.perf_counter() - started
        facts = {"seconds": seconds, "attack": craft.facts, **_size(train, poison)}
        return poison_bundle(poison, facts)

    @staticmethod
    def join(pieces: Sequence[Bundle]) -> Bundle:
        """One poison from consecutive ranges of rows."""
        names = pieces[0].tensors
        tensors = {n: torch.cat([p.tensors[n] for p in pieces]) for n in names}
        facts = dict(pieces[0].facts)
        facts["seconds"] = sum(p.facts["seconds"] for p in pieces)
        facts["size"] = {
            norm: {
                "max": max(p.facts["size"][norm]["max"] for p in pieces),
                "mean": sum(
                    p.facts["size"][norm]["mean"] * len(p.tensors["labels"]) for p in pieces
                )
                / len(tensors["labels"]),
            }
            for norm in facts["size"]
        }
        return Bundle(tensors, facts)


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
            images, _ = mix(World.of(inputs[0]), poison_of(inputs[1]), self.poison, self.ratio)
        # The stream must not know the attack: the same images are purified the same way.
        stream = Stream("purify", (self.poison.data.dataset.id, self.links[-1].id, self.seed))
        started = time.perf_counter()
        purified = purify(self.links[-1], images, Workshop(stream, bench.device))
        facts = {"classes": images.classes, "seconds": time.perf_counter() - started}
        return Bundle({"pixels": purified.pixels.cpu(), "labels": purified.labels.cpu()}, facts)


def purify(link: Defense, images: Images, workshop: Workshop) -> Images:
    """What a purifier makes of a set; raises one DataError that names it if that is no such set."""
    nameless = images.with_pixels(images.pixels)  # only unpoisoned images have a fingerprint
    try:
        purified = link.purify(nameless, workshop)
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
    stream = Stream("ratio", (artifact.data.dataset.id, artifact.seed))
    return poison.overlay(world.train, ratio, stream)
