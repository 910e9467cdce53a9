"""Trained networks that attacks and transfer learning start from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from raygrid.architectures import ARCHITECTURES
from raygrid.architectures.base import weights_nbytes
from raygrid.architectures.weights import GivenWeights
from raygrid.attacks.common.surrogate_training import accuracy, train_surrogate
from raygrid.attacks.common.surrogates import SurrogateRecipe, shortfall
from raygrid.core.errors import DataError
from raygrid.core.hashing import key_of
from raygrid.core.images import Images
from raygrid.core.lazy import nn, torch
from raygrid.core.seeds import Stream
from raygrid.core.speed import Speed
from raygrid.nn.networks import freeze
from raygrid.nn.recipes import Recipe
from raygrid.storage.store import Bundle, as_state
from raygrid.trials.artifacts.base import Artifact, BuildContext
from raygrid.trials.artifacts.dataset import LEAST_MAKING_SECONDS, DatasetArtifact, World


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

    @property
    def nbytes(self) -> int:
        data = self.data.dataset
        architecture = ARCHITECTURES.make(self.recipe.architecture)
        one = weights_nbytes(architecture, data.classes, data.image_size)
        return one * max(1, len(self.recipe.kept))

    @property
    def held_nbytes(self) -> int:
        return self.data.train_size * self.data.pixel_nbytes

    def seconds(self, speed: Speed) -> float:
        climbed = 2.0 * self.recipe.climb[0] if self.recipe.radius else 0.0
        passes = (3.0 + climbed) * self.recipe.recipe.epochs
        return LEAST_MAKING_SECONDS + self.data.pass_seconds(
            self.recipe.architecture, passes, speed
        )

    def needs(self) -> tuple[Artifact, ...]:
        return (self.data,)

    def make(self, inputs: Sequence[Bundle], context: BuildContext) -> Bundle:
        world = World.of(inputs[0])
        stream = Stream("surrogate", (self.data.dataset.id, self.seed))
        network = train_surrogate(
            self.recipe, world.train, stream, context.device, context.progress
        )
        last = network[-1] if isinstance(network, nn.ModuleList) else network
        reached = accuracy(last, world.test.to(context.device))
        mark = None
        if not self.recipe.radius:  # the floors are those of plain training
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
    """How and on what a protocol pre-trains extractors; each is made once, for every seed.

    augmentation: as surrogates have it.
    """

    data: DatasetArtifact
    content: str
    recipe: Recipe
    augmentation: str = "crop_flip"

    def extractor(self, architecture: str, number: int = 0) -> SurrogateArtifact:
        recipe = SurrogateRecipe(
            architecture, architecture, self.recipe, self.augmentation, normalization="data"
        )
        return SurrogateArtifact(self.data, self.content, recipe, number)

    def resolved(self) -> dict[str, Any]:
        resolved = {"content": self.content, "recipe": self.recipe.resolved()}
        if self.augmentation != "crop_flip":
            resolved["augmentation"] = self.augmentation
        return resolved


@dataclass(frozen=True)
class GivenExtractor(SurrogateArtifact):
    """An extractor whose weights a user gives; nothing is trained.

    data: those of the trial, by which images and classes are counted. digest: of the file, so that
    a key is of what it holds.
    """

    weights: GivenWeights
    digest: str

    @property
    def gpu(self) -> bool:
        return False

    @property
    def key(self) -> str:
        data, built = self.data.dataset, ARCHITECTURES.make(self.recipe.architecture).resolved()
        parts = [self.digest, self.weights.normalization, built, data.classes, data.image_size]
        return key_of([self.kind, "given", *parts])

    @property
    def label(self) -> str:
        return f"{self.recipe.architecture} with given weights"

    def seconds(self, speed: Speed) -> float:
        return LEAST_MAKING_SECONDS

    def needs(self) -> tuple[Artifact, ...]:
        return ()

    def make(self, inputs: Sequence[Bundle], context: BuildContext) -> Bundle:
        architecture = ARCHITECTURES.make(self.recipe.architecture)
        path, data = self.weights.path(architecture), self.data.dataset
        if self.weights.content(architecture) != self.digest:
            raise DataError(f"weights {path} are not those that the grid was planned with")
        return Bundle(self.weights.state(architecture, data.classes, data.image_size))


@dataclass(frozen=True)
class GivenPretraining(Pretraining):
    """What a user gives instead of a pre-training; data: the trial's, the recipe is not followed.

    architecture: whose weights they are.
    """

    weights: GivenWeights = field(kw_only=True)
    architecture: str = field(kw_only=True)

    @property
    def digest(self) -> str:
        """Names what the file holds; empty if it is not there."""
        return self.weights.content(ARCHITECTURES.make(self.architecture))

    def extractor(self, architecture: str, number: int = 0) -> SurrogateArtifact:
        recipe = SurrogateRecipe(architecture, architecture, self.recipe, normalization="data")
        return GivenExtractor(self.data, "", recipe, number, self.weights, self.digest)

    def resolved(self) -> dict[str, Any]:
        return {"weights": self.digest, "normalization": self.weights.normalization}
