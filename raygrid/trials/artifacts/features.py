"""What a frozen extractor makes of clean images: computed once, shared by every trial of a cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from raygrid.architectures import ARCHITECTURES
from raygrid.architectures.base import network_size
from raygrid.core.hashing import key_of
from raygrid.core.images import Images
from raygrid.core.lazy import torch
from raygrid.core.speed import Speed
from raygrid.learners.base import Kept
from raygrid.learners.common.features import features_of
from raygrid.learners.common.frozen import augmented_features
from raygrid.nn import augment
from raygrid.protocols.setups import SetupRule
from raygrid.storage.store import Bundle
from raygrid.trials.artifacts import (
    Artifact,
    BuildContext,
    DatasetArtifact,
    SurrogateArtifact,
    World,
)
from raygrid.trials.artifacts.dataset import LABEL_BYTES, LEAST_MAKING_SECONDS

if TYPE_CHECKING:
    from raygrid.architectures.networks.network import Network


@dataclass(frozen=True)
class FeaturesArtifact(Artifact):
    """Features of the clean training images that set-ups have in common, and of the test set.

    Those of the test set with each trigger of the set-ups, too.

    passes: augmented passes over the training images. augmentation: of these, by its name; with
    `none` one pass is enough. Neither a set-up's number nor an attack changes them.
    """

    data: DatasetArtifact
    content: str
    extractor: SurrogateArtifact
    rule: SetupRule
    passes: int
    augmentation: str
    kind: ClassVar[str] = "features"

    @property
    def key(self) -> str:
        most = None if self.rule.per_class is None else self.rule.per_class + self.rule.poisons
        parts = [self.kind, self.content, self.extractor.key, most, self.passes]
        return key_of([*parts, self.augmentation, self.rule.patch, bool(self.rule.folder)])

    @property
    def label(self) -> str:
        return f"{self.extractor.label}, of {self.data.label}"

    @property
    def _images(self) -> tuple[int, int]:
        """How many training images have features, and how many test images with every trigger."""
        data = self.data.dataset
        shown = 1 + len(self.rule.triggers(data.image_size))
        return self.rule.shared_size(data.train_size, data.classes), shown * data.test_size

    @property
    def nbytes(self) -> int:
        data, (train, test) = self.extractor.data.dataset, self._images
        architecture = ARCHITECTURES.make(self.extractor.recipe.architecture)
        width = network_size(architecture, data.classes, data.image_size).width
        return 4 * width * (self.passes * train + test) + LABEL_BYTES * train

    @property
    def held_nbytes(self) -> int:
        return self._images[0] * self.data.pixel_nbytes

    def seconds(self, speed: Speed) -> float:
        train, test = self._images
        passes = (self.passes * train + test) / self.data.train_size
        architecture = self.extractor.recipe.architecture
        return LEAST_MAKING_SECONDS + self.data.pass_seconds(architecture, passes, speed.of_float32)

    def needs(self) -> tuple[Artifact, ...]:
        return (self.data, self.extractor)

    def make(self, inputs: Sequence[Bundle], context: BuildContext) -> Bundle:
        world = World.of(inputs[0])
        rows = self.rule.shared_rows(world.train.labels)
        network = self.network(inputs[1], context.device)
        data = self.data.dataset
        standard = augment.standard(self.augmentation, data.image_size)
        images = world.train.rows(rows).to(context.device)
        made = [augmented_features(network, images, rows, standard, p) for p in range(self.passes)]
        tensors = {"rows": rows, "train": torch.stack(made).cpu()}
        shown = {"test": world.test.pixels}
        for name, trigger in self.rule.triggers(data.image_size).items():
            shown[f"test_{name}"] = trigger.apply(world.test.pixels)
        for name, pixels in shown.items():
            test = world.test.with_pixels(pixels).to(context.device)
            tensors[name] = features_of(network, test, "fp32").cpu()
        return Bundle(tensors)

    def network(self, bundle: Bundle, device: torch.device) -> Network:
        """The extractor with its own head, frozen."""
        from raygrid.architectures.networks.network import Network

        network = self.extractor.network(bundle, self.extractor.blank(), device)
        assert isinstance(network, Network)
        return network


def features_for(bundle: Bundle, world: World, train: Images, device: torch.device) -> Kept:
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
    tests = {world.test.fingerprint: tensors["test"].to(device)}
    for name, trigger in scene.triggers.items():
        for group, rows in scene.group_rows(world.test).items():
            print_ = scene.group_fingerprint(world.test, trigger, group)
            tests[print_] = tensors[f"test_{name}"][rows].to(device)
    return Kept(scene.rows, known, values.to(device), tests)
