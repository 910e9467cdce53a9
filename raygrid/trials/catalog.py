"""The data at hand: which artifact a dataset is, and what it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from raygrid.core.lazy import torch
from raygrid.datasets.base import Dataset
from raygrid.storage.store import Bundle, Store
from raygrid.trials.artifacts import BuildContext, DatasetArtifact

Contents = dict[tuple[str, float], tuple[DatasetArtifact, str]]
"""(dataset part, validation) -> artifact and content: what a driver tells its workers."""


class Lookup(Protocol):
    """What resolving a spec has to know about its data."""

    def artifact(self, dataset: Dataset, validation: float) -> DatasetArtifact:
        """The artifact of the dataset, which then knows the sizes of the data at hand."""
        ...

    def content(self, artifact: DatasetArtifact) -> str:
        """The fingerprint of the decoded data."""
        ...


class Catalog:
    """The data of this machine: knows each dataset's content, decoding it once."""

    def __init__(self, store: Store, data_root: Path) -> None:
        self.store = store
        self.data_root = data_root.absolute()
        self._content: dict[DatasetArtifact, str] = {}
        self._seen: dict[Dataset, tuple[Dataset, str]] = {}

    def artifact(self, dataset: Dataset, validation: float) -> DatasetArtifact:
        """What `Lookup` promises; files are looked at once, DataError if they are not there."""
        if dataset not in self._seen:
            root = self.data_root
            self._seen[dataset] = dataset.seen(root), dataset.source(root)
        return DatasetArtifact(*self._seen[dataset], validation)

    def content(self, artifact: DatasetArtifact) -> str:
        """What `Lookup` promises; decodes and stores the data if nobody did yet."""
        if artifact not in self._content:
            meta = self.store.meta(artifact.kind, artifact.key)
            facts = meta["facts"] if meta else self._decode(artifact).facts
            self._content[artifact] = str(facts["fingerprint"])
        return self._content[artifact]

    @property
    def contents(self) -> Contents:
        """Everything looked up so far."""
        return {
            (str(a.dataset.part()), a.validation): (a, content)
            for a, content in self._content.items()
        }

    def _decode(self, artifact: DatasetArtifact) -> Bundle:
        bundle = artifact.make([], BuildContext(torch.device("cpu"), self.data_root))
        self.store.put(artifact.kind, artifact.key, bundle)
        return bundle


class ToldCatalog:
    """What a driver found, on a worker that need not have the data themselves."""

    def __init__(self, told: Contents) -> None:
        self._told = told

    def artifact(self, dataset: Dataset, validation: float) -> DatasetArtifact:
        return self._told[str(dataset.part()), validation][0]

    def content(self, artifact: DatasetArtifact) -> str:
        return self._told[str(artifact.dataset.part()), artifact.validation][1]
