"""A user's own images as a dataset, and artifacts made of it in memory, without any store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from raygrid.core.errors import SpecError
from raygrid.core.images import Images, fingerprint, moments
from raygrid.core.registry import Card, require
from raygrid.core.spec import Part
from raygrid.datasets import DATASETS
from raygrid.datasets.base import Dataset, Split
from raygrid.storage.store import Bundle
from raygrid.trials import privileges
from raygrid.trials.artifacts import Artifact, BuildContext, DatasetArtifact, GivenPretraining
from raygrid.trials.resolve import resolve
from raygrid.trials.trial import Trial

UNNAMED = "given"
_PLACE = "photo_digits"  # any dataset that needs no files: a spec has to name one


@dataclass(frozen=True, kw_only=True)
class GivenImages(Dataset):
    """Images that somebody holds in memory, as a dataset of one name.

    name: decides the draws of attacks and defenses, as a dataset's id does; that of a dataset of
    raygrid's takes its augmentation and channel moments along. test: what stands in for a test
    part where none was given.
    """

    card = Card(paper="yours")
    version: ClassVar[int] = 1
    official_sizes: ClassVar[bool] = False  # whatever its name, it is what somebody gave

    name: str = UNNAMED
    content: str = ""
    train: Images = field(compare=False)
    test: Images = field(compare=False)

    @classmethod
    def of(cls, train: Images, test: Images | None, name: str) -> GivenImages:
        """Raises SpecError for a name that is neither `given` nor a dataset's."""
        said: Any = name
        require(isinstance(said, str), f"name is {said!r}, allowed is that of a dataset")
        if name != UNNAMED:
            DATASETS.expect(name)
        test = train if test is None else test
        if test.shape != train.shape or test.classes != train.classes:
            here = f"{test.shape} with {test.classes} classes"
            raise SpecError(
                f"test images are {here}, those to train on {train.shape} with {train.classes}"
            )
        made = cls(
            name=name, content=fingerprint(train.pixels, train.labels), train=train, test=test
        )
        made._describe()
        return made

    def _describe(self) -> None:
        """Facts that other datasets have as class values stand on the instance here."""
        known = DATASETS[self.name] if self.name != UNNAMED else None
        mean, std = (known.mean, known.std) if known else moments(self.train.pixels)
        facts: dict[str, Any] = {
            "id": self.name,
            "classes": self.train.classes,
            "image_size": self.train.shape[-1],
            "train_size": len(self.train),
            "test_size": len(self.test),
            "looked_at": True,
            "augmentation": known.augmentation if known else "crop_flip",
            "pretraining": known.pretraining if known else _PLACE,
            "mean": mean,
            "std": std,
        }
        for name, value in facts.items():
            object.__setattr__(self, name, value)

    def resolved(self) -> dict[str, Any]:
        return {"id": self.name, "version": self.version, "content": self.content}

    def part(self, base: object = None) -> Part:
        return Part(self.name if self.name != UNNAMED else _PLACE)

    def source(self, root: Path) -> str:
        return self.content

    def load(self, root: Path) -> Split:
        return Split(self.train, self.test)


class GivenCatalog:
    """Answers every question about data with the given images (a `trials.catalog.Lookup`)."""

    def __init__(self, images: GivenImages) -> None:
        self.images = images

    def artifact(self, dataset: Dataset, validation: float) -> DatasetArtifact:
        if dataset.id not in (self.images.id, place_of(self.images)):
            raise SpecError(
                f"the images of {dataset.part()} are wanted beside the given ones, and only those "
                "are here: run a grid"
            )
        return DatasetArtifact(self.images, self.images.content, validation)

    def content(self, artifact: DatasetArtifact) -> str:
        return self.images.content


def resolve_given(spec: str, images: GivenImages) -> Trial:
    """A trial on the given images; raises SpecError if it is about images that were not given.

    Nobody says here what is clean and what is poisoned, so a method that starts from clean images,
    or from poisons beside their originals, would quietly take the given ones for both.
    """
    trial = resolve(spec, GivenCatalog(images))
    said = privileges.of_defense(trial.spec.chain)
    if trial.pretraining is not None and not isinstance(trial.pretraining, GivenPretraining):
        raise SpecError(
            f"{trial.spec.protocol} trains a network on clean images for {trial.spec.learner} to "
            "start from; which those are is known on a grid alone"
        )
    if said and not trial.bases:
        raise SpecError(f"{trial.spec.chain} {said}; which those are is known on a grid alone")
    return trial


def refuse_derived(trial: Trial, defense: str, verb: str) -> None:
    """Raise SpecError for a trial whose row follows from others'; verb: what it does not do."""
    if trial.bases:
        raise SpecError(f"{defense} is derived from finished trials and {verb} nothing: run a grid")


def place_of(images: GivenImages) -> str:
    """What stands for the dataset in a spec string."""
    return str(images.part())


def in_memory() -> Callable[[Artifact], Bundle]:
    """Makes artifacts with all that they need, each once, and keeps them as long as it lives."""
    from raygrid.engine.worker import ready_device

    context = BuildContext(ready_device(), Path())
    made: dict[str, Bundle] = {}

    def fetch(artifact: Artifact) -> Bundle:
        if artifact.key not in made:
            inputs = [fetch(need) for need in artifact.needs()]
            made[artifact.key] = artifact.make(inputs, context)
        return made[artifact.key]

    return fetch
