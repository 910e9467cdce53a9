"""What a dataset is."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from raygrid.data import Images
from raygrid.registry import Method, Registry


@dataclass(frozen=True)
class Split:
    """A dataset in memory: both parts share `classes` and the image shape."""

    train: Images
    test: Images


@dataclass(frozen=True, kw_only=True)
class Dataset(Method):
    """A labeled image set with a fixed training and test part.

    classes, image_size (H = W), train_size, test_size: known before anything is loaded.
    augmentation: what "standard augmentation" means here: `crop_flip`, `crop`, `rrc_flip`, `none`.
    mean, std: per channel in [0, 1], for protocols that normalize inside the model.
    """

    classes: ClassVar[int]
    image_size: ClassVar[int]
    train_size: ClassVar[int]
    test_size: ClassVar[int]
    augmentation: ClassVar[str] = "crop_flip"
    mean: ClassVar[tuple[float, float, float]] = (0.5, 0.5, 0.5)
    std: ClassVar[tuple[float, float, float]] = (0.25, 0.25, 0.25)

    @abstractmethod
    def source(self, root: Path) -> str:
        """Name the content to be loaded cheaply (a version, or sizes and times of files).

        `root` is the data folder. Raises DataError that names the path if the data are not there.
        """

    @abstractmethod
    def load(self, root: Path) -> Split:
        """Decode everything; raises DataError that names the damaged file and what to do."""

    def download(self, root: Path) -> None:
        """Fetch the official files into `root`; raises DataError where that is not possible."""
        from raygrid.errors import DataError

        raise DataError(f"{self.id} cannot be downloaded; put its files under {root / self.id}")


DATASETS: Registry[Dataset] = Registry("dataset", Dataset)  # type: ignore[type-abstract]
