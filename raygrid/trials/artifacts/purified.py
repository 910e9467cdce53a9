"""What a defense makes of a poisoned training set."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from raygrid.core.errors import DataError
from raygrid.core.hashing import key_of
from raygrid.core.images import Images, left_alone
from raygrid.core.lazy import torch
from raygrid.core.seeds import Stream
from raygrid.core.speed import DRAW_SECONDS, Speed
from raygrid.defenses.base import Defense, FitContext
from raygrid.storage.store import Bundle
from raygrid.trials.artifacts.base import Artifact, BuildContext
from raygrid.trials.artifacts.bridge import BridgeArtifact
from raygrid.trials.artifacts.dataset import LEAST_MAKING_SECONDS, World
from raygrid.trials.artifacts.denoiser import DenoiserArtifact
from raygrid.trials.artifacts.poison import PoisonArtifact, mix, poison_of

FILTER_SECONDS = 1e-4
"""Seconds that a filter takes an image."""


@dataclass(frozen=True)
class PurifiedArtifact(Artifact):
    """A training set after one purifying link of a defense chain.

    priors: by link the network that it starts from, None for most.
    """

    poison: PoisonArtifact
    ratio: float
    links: tuple[Defense, ...]
    seed: int
    priors: tuple[DenoiserArtifact | BridgeArtifact | None, ...] = ()
    kind: ClassVar[str] = "purified"

    @property
    def cost(self) -> float:
        """The cost in epochs of a ResNet-18 on the same images, for estimates."""
        side = self.poison.data.dataset.image_size
        return self.links[-1].purify_cost_of(self.poison.pool_size, side)

    @property
    def gpu(self) -> bool:
        return self.cost > 0

    @property
    def before(self) -> PurifiedArtifact | None:
        """The same set one link earlier, None for the first link."""
        if len(self.links) == 1:
            return None
        return replace(self, links=self.links[:-1], priors=self.priors[:-1])

    @property
    def prior(self) -> DenoiserArtifact | BridgeArtifact | None:
        return self.priors[-1] if self.priors else None

    @property
    def key(self) -> str:
        links = [d.resolved() for d in self.links]
        parts: list[Any] = [self.kind, self.poison.key, self.ratio, links, self.seed]
        parts.append(self.poison.data.dataset.augmentation)  # a link may train a network with it
        priors = [prior.key for prior in self.priors if prior is not None]
        return key_of([*parts, priors] if priors else parts)

    @property
    def label(self) -> str:
        return f"{'+'.join(d.id for d in self.links)} of {self.poison.label}"

    @property
    def nbytes(self) -> int:
        return self.poison.pool_size * self.poison.data.image_nbytes

    @property
    def held_nbytes(self) -> int:
        return int(self.links[-1].holds * self.poison.pool_size * self.poison.data.pixel_nbytes)

    def seconds(self, speed: Speed) -> float:
        link, poison = self.links[-1], self.poison
        own = speed if link.purify_precision == "bf16" else speed.of_float32
        draws = poison.pool_size * link.purify_draws(poison.data.dataset.image_size)
        return max(purifying_seconds(poison, self.cost, own), DRAW_SECONDS * draws)

    def needs(self) -> tuple[Artifact, ...]:
        before = self.before
        given = (before,) if before else (self.poison.data, self.poison)
        return (*given, self.prior) if self.prior else given

    def make(self, inputs: Sequence[Bundle], context: BuildContext) -> Bundle:
        images = reaching(self.before, self.poison, self.ratio, inputs)
        # The stream must not know the attack: the same images are purified the same way.
        stream = Stream("purify", (self.poison.data.dataset.id, self.links[-1].id, self.seed))
        started = time.perf_counter()
        prior = inputs[-1].tensors if self.prior else {}
        augmentation = self.poison.data.dataset.augmentation
        fit_context = FitContext(stream, context.device, prior=prior, augmentation=augmentation)
        purified = purify(self.links[-1], images, fit_context)
        seconds = {f"{work}_seconds": taken for work, taken in fit_context.seconds.items()}
        before = inputs[0].facts.get("marks", ()) if self.before else ()
        facts = {
            "classes": images.classes,
            "seconds": time.perf_counter() - started,
            **seconds,
            "marks": [*before, *fit_context.marks],
        }
        return Bundle({"pixels": purified.pixels.cpu(), "labels": purified.labels.cpu()}, facts)


def purifying_seconds(poison: PoisonArtifact, epochs: float, speed: Speed) -> float:
    """Time of a link over a poisoned training set, at a speed in its precision.

    epochs: what it costs, in epochs of a ResNet-18 on that set.
    """
    share = poison.pool_size / poison.data.dataset.train_size
    fit = poison.data.epoch_seconds(epochs * share, speed)
    return LEAST_MAKING_SECONDS + poison.pool_size * FILTER_SECONDS + fit


def reaching(
    before: PurifiedArtifact | None,
    poison: PoisonArtifact,
    ratio: float,
    inputs: Sequence[Bundle],
) -> Images:
    """The training set that a link meets: as the link before left it, else as it was poisoned.

    inputs: that of `before`, or else the data and the poison.
    """
    if before:
        return purified_of(inputs[0])
    world = World.of(inputs[0], poison.setup)
    return mix(world, poison_of(inputs[1]), poison, ratio)[0]


def purified_of(bundle: Bundle) -> Images:
    """The training set that a purified bundle holds."""
    return Images(bundle.tensors["pixels"], bundle.tensors["labels"], bundle.facts["classes"])


def purify(link: Defense, images: Images, fit_context: FitContext) -> Images:
    """What a purifier makes of a set; raises one DataError that names it if that is no such set."""
    nameless = images.with_pixels(images.pixels)  # only unpoisoned images have a fingerprint
    with left_alone(nameless, link.id, "images"):
        try:
            purified = link.purify(nameless, fit_context)
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
