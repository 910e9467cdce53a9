"""What an artifact is: something with a content key, made once from other artifacts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from raygrid.core.lazy import torch
from raygrid.core.speed import Speed
from raygrid.storage.checkpoints import NoProgress, Progress
from raygrid.storage.store import Bundle


@dataclass(frozen=True)
class BuildContext:
    """Where an artifact is made: the device, the data folder, a place for checkpoints."""

    device: torch.device
    data_root: Path
    progress: Progress = field(default_factory=NoProgress)


@dataclass(frozen=True)
class Artifact(ABC):
    """Something with a content key that is made from other artifacts.

    shared: whether several jobs read it, so that a copy in a cluster's memory pays.
    """

    kind: ClassVar[str]
    shared: ClassVar[bool] = True

    @property
    def instant(self) -> bool:
        """Whether it takes no time and is made by the first job that needs it."""
        return False

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
    def make(self, inputs: Sequence[Bundle], context: BuildContext) -> Bundle: ...

    @abstractmethod
    def seconds(self, speed: Speed) -> float:
        """About how long `make` takes on a device of that speed, for order and for planning."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """About how many bytes its tensors take on disk."""

    @property
    def held_nbytes(self) -> int:
        """Bytes of images, and of noise for each, that `make` has on the device at once.

        At least: networks and batches come on top. 0: images come in batches.
        """
        return 0

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
