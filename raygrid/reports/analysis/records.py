"""Finding what trials left: their data, their predictions and features, their networks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from raygrid.core.errors import DataError
from raygrid.core.images import Images
from raygrid.core.lazy import torch
from raygrid.core.options import Options
from raygrid.engine.aloud import TellingWorker
from raygrid.storage.store import Bundle, Store
from raygrid.trials import poisons
from raygrid.trials.artifacts import World, mix, poison_of
from raygrid.trials.catalog import Catalog
from raygrid.trials.outputs import network_from
from raygrid.trials.poisons import Poisoned
from raygrid.trials.resolve import resolve
from raygrid.trials.trial import Trial

if TYPE_CHECKING:
    from torch import Tensor

    from raygrid.architectures.networks.network import Network

EvaluationRow = dict[str, Any]
"""What an evaluation says of one thing, by the names of its columns."""


@dataclass(frozen=True)
class Victim:
    """A trained network as it came out of its trial, in eval mode and float32, without gradients.

    clean: the training set before it was poisoned; test: the test set. Both on the CPU.
    """

    trial: Trial
    network: Network
    clean: Images
    test: Images

    @property
    def name(self) -> str:
        return str(self.trial.spec)

    def first(self, count: int | None) -> Images:
        """The first images of the test set, all of them without a count."""
        return self.test if count is None else self.test.rows(torch.arange(len(self.test))[:count])

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def __call__(self, x: Tensor) -> Tensor:
        """Scores float32 (n, classes) of images (n, C, H, W) in [0, 1], on the device."""
        return self.network(self.trial.defense.view(x)).float()


class Records:
    """What is in a store, by spec; networks as they were after the last epoch or at their peak."""

    def __init__(
        self, store: Store, data_root: Path, epoch: Literal["last", "peak"] = "last"
    ) -> None:
        self.store = store
        self.networks = "peak" if epoch == "peak" else "weights"
        self.catalog = Catalog(store, data_root)
        self.worker = TellingWorker(store, Options(data=data_root))

    def trial(self, spec: str) -> Trial:
        """A trial that was trained; raises SpecError, or DataError if it is derived from others."""
        trial = resolve(spec, self.catalog)
        if trial.bases:
            bases = ", ".join(map(str, trial.bases))
            raise DataError(f"{trial.spec} is derived and left nothing; it comes from {bases}")
        return trial

    def expect(self, trials: Iterable[str], poisoned: Iterable[str], seed: int, kind: str) -> None:
        """Raise what a faulty spec among these would, before hours go into those in front of it.

        kind: what every trial has to have left, empty for nothing.
        """
        for text in poisoned:
            poisons.trial_behind(text, self.catalog, seed)
        for trial in map(self.trial, trials):
            if kind and not self.store.has(kind, trial.key):
                raise self._left_nothing(trial, kind)

    def left(self, trial: Trial, kind: str) -> Bundle:
        """What a trial left of a kind; raises DataError that says how to get it."""
        found = self.store.get(kind, trial.key)
        if found is None:
            raise self._left_nothing(trial, kind)
        return found

    @staticmethod
    def _left_nothing(trial: Trial, kind: str) -> DataError:
        return DataError(f"{trial.spec} left no {kind}: run it with --keep {kind}")

    def world(self, trial: Trial) -> World:
        return World.of(self.worker.fetch(trial.data))

    def training_set(self, trial: Trial) -> Images:
        """What the attack left of the training set, before any defense."""
        poison = poison_of(self.worker.tell_and_fetch(trial.poison))
        images, _ = mix(self.world(trial), poison, trial.poison, trial.spec.poison_ratio)
        return images

    def poisoned(self, text: str, seed: int = 0) -> Poisoned:
        """The poisoned set that `dataset/attack[@ratio]` names; made if it is not there."""
        return poisons.make(text, self.catalog, self.worker.tell_and_fetch, seed)

    def victim(self, spec: str) -> Victim:
        """The network of a trial; raises DataError if it left no weights, or none with a head."""
        trial = self.trial(spec)
        if self.networks == "peak" and trial.learner.views:
            raise DataError(f"the peak of {trial.spec} is an encoder without a linear probe")
        bundle = self.left(trial, self.networks)
        world = self.world(trial)
        network = network_from(trial, bundle, world.train.classes, self.worker.device)
        return Victim(trial, network, world.train, world.test)
