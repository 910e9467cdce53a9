"""A dataset decoded once, and the world that a trial takes from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from raygrid.architectures import ARCHITECTURES
from raygrid.core.errors import DataError
from raygrid.core.hashing import key_of
from raygrid.core.images import Images, fingerprint
from raygrid.core.lazy import torch
from raygrid.core.seeds import Stream
from raygrid.core.speed import Speed
from raygrid.datasets.base import Dataset, Split
from raygrid.protocols.setups import Scene, SetupPlan
from raygrid.storage.store import Bundle
from raygrid.trials.artifacts.base import Artifact, BuildContext

LABEL_BYTES = 8
"""Bytes of a label and of a row number, both int64."""
LEAST_MAKING_SECONDS = 0.1
"""Seconds that making anything takes at least: reading what it needs, writing what it is."""
DECODE_SECONDS = 5e-9
"""Seconds to decode a byte of pixels and to take its fingerprint."""


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

    @property
    def pixel_nbytes(self) -> int:
        """Bytes of the pixels of one image, uint8."""
        return 3 * self.dataset.image_size**2

    @property
    def image_nbytes(self) -> int:
        """Bytes of one image: its pixels uint8, and its label int64."""
        return self.pixel_nbytes + LABEL_BYTES

    @property
    def nbytes(self) -> int:
        return (self.dataset.train_size + self.dataset.test_size) * self.image_nbytes

    def seconds(self, speed: Speed) -> float:
        return LEAST_MAKING_SECONDS + self.nbytes * DECODE_SECONDS

    def pass_seconds(self, architecture: str, passes: float, speed: Speed) -> float:
        """Time of so many forward passes of the training set; three are a training pass."""
        gflop = ARCHITECTURES.make(architecture).gflop * (self.dataset.image_size / 32) ** 2
        return speed.seconds(3 * gflop, self.train_size * passes / 3)

    def epoch_seconds(self, epochs: float, speed: Speed) -> float:
        """Time of so many epochs of a ResNet-18 on the dataset's training images."""
        gflop = 3.3 * (self.dataset.image_size / 32) ** 2
        return speed.seconds(gflop, self.dataset.train_size * epochs)

    def needs(self) -> tuple[Artifact, ...]:
        return ()

    def make(self, inputs: Sequence[Bundle], context: BuildContext) -> Bundle:
        split = self.dataset.loaded(context.data_root)
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
