"""What a frozen extractor makes of clean images: computed once, shared by every trial of a cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from raygrid import augment
from raygrid.architectures.base import Network
from raygrid.artifacts import Artifact, Bench, DatasetArtifact, SurrogateArtifact, World
from raygrid.data import Images
from raygrid.learners.base import Kept
from raygrid.learners.frozen import augmented_features
from raygrid.learners.knn import features_of
from raygrid.setups import SetupRule
from raygrid.store import Bundle, key_of


@dataclass(frozen=True)
class FeaturesArtifact(Artifact):
    """Features of the clean training images that set-ups have in common, and of the test set.

    passes: augmented passes over the training images; one pass of the images as they are if not
    `augmented`. Neither a set-up's number nor an attack changes them.
    """

    data: DatasetArtifact
    content: str
    extractor: SurrogateArtifact
    rule: SetupRule
    passes: int
    augmented: bool
    kind: ClassVar[str] = "features"
    gpu: ClassVar[bool] = True

    @property
    def key(self) -> str:
        most = None if self.rule.per_class is None else self.rule.per_class + self.rule.poisons
        parts = [self.kind, self.content, self.extractor.key, most, self.passes, self.augmented]
        return key_of([*parts, self.data.dataset.augmentation])

    @property
    def label(self) -> str:
        return f"{self.extractor.label}, of {self.data.label}"

    def needs(self) -> tuple[Artifact, ...]:
        return (self.data, self.extractor)

    def make(self, inputs: Sequence[Bundle], bench: Bench) -> Bundle:
        world = World.of(inputs[0])
        rows = self.rule.shared_rows(world.train.labels)
        network = self.network(inputs[1], bench.device)
        data = self.data.dataset
        standard = augment.standard(data.augmentation, data.image_size) if self.augmented else None
        images = world.train.rows(rows).to(bench.device)
        made = [augmented_features(network, images, rows, standard, p) for p in range(self.passes)]
        test = features_of(network, world.test.to(bench.device), "fp32")
        return Bundle({"rows": rows, "train": torch.stack(made).cpu(), "test": test.cpu()})

    def network(self, bundle: Bundle, device: torch.device) -> Network:
        """The extractor with its own head, frozen."""
        network = self.extractor.network(bundle, self.extractor.blank(), device)
        assert isinstance(network, Network)
        return network


def kept(bundle: Bundle, world: World, train: Images, device: torch.device) -> Kept:
    """What of a features bundle holds for the images of a trial: those that nobody changed."""
    tensors, scene = bundle.tensors, world.scene
    assert scene is not None
    place = torch.full((len(scene.whole),), -1)
    place[tensors["rows"]] = torch.arange(len(tensors["rows"]))
    clean = world.train.pixels
    same = torch.ones(len(train), dtype=torch.bool)
    if train.pixels is not clean:
        same = (train.pixels == clean).flatten(1).all(1)
    at = place[scene.rows]
    known = same & (at >= 0)
    values = tensors["train"][:, at.clamp_min(0)]
    values[:, ~known] = 0
    parts: dict[str, Any] = {"rows": scene.rows, "known": known, "train": values.to(device)}
    return Kept(**parts, test=tensors["test"].to(device), test_print=world.test.fingerprint)
