"""Street View House Numbers."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from raygrid.core.errors import DataError
from raygrid.core.images import Images
from raygrid.core.lazy import np, torch
from raygrid.core.registry import Card
from raygrid.datasets.base import DATASETS, Facts, Split
from raygrid.datasets.common.cifar import checked
from raygrid.datasets.common.files import FileDataset
from raygrid.datasets.common.holdings import Holding, fetch, identity

SVHN_SITE = "http://ufldl.stanford.edu/housenumbers"


@DATASETS.register("svhn")
@dataclass(frozen=True, kw_only=True)
class Svhn(FileDataset):
    """99,289 cropped digits, 32x32. Official form: `train_32x32.mat`, `test_32x32.mat`.

    Label 10 of the files stands for the digit 0. The extra part is not used.
    """

    card = Card(
        paper="Netzer et al. 2011, Reading Digits in Natural Images",
        code="torchvision.datasets.SVHN",
        notes="no standard augmentation, as in APBench; mean and std from public code",
    )
    files: ClassVar[Mapping[str, str]] = {
        "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
        "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
    }
    classes: ClassVar[int] = 10
    class_names: ClassVar[tuple[str, ...]] = tuple("0123456789")
    image_size: ClassVar[int] = 32
    train_size: ClassVar[int] = 73_257
    test_size: ClassVar[int] = 26_032
    lossless: ClassVar[bool] = True
    augmentation: ClassVar[str] = "none"
    mean: ClassVar[tuple[float, float, float]] = (0.4377, 0.4438, 0.4728)
    std: ClassVar[tuple[float, float, float]] = (0.1980, 0.2010, 0.1970)

    def official(self, place: Path) -> Holding | None:
        if not any((place / name).exists() for name in self.files):
            return None
        return Matrices(place, self.files)

    def download(self, root: Path) -> None:
        for name, md5 in self.files.items():
            fetch(f"{SVHN_SITE}/{name}", root / self.id, md5)


@dataclass(frozen=True)
class Matrices(Holding):
    """MATLAB files: `X` uint8 (32, 32, 3, N), `y` (N, 1) in 1 to 10."""

    place: Path
    files: Mapping[str, str]

    def source(self) -> str:
        return identity([self.place / name for name in self.files])

    def facts(self, nominal: Facts) -> Facts:
        return nominal

    def load(self) -> Split:
        train, test = (self._part(self.place / name, md5) for name, md5 in self.files.items())
        return Split(train, test)

    def _part(self, path: Path, md5: str) -> Images:
        from scipy.io import loadmat

        content = checked(path, md5)
        try:
            matrices: dict[str, Any] = loadmat(io.BytesIO(content))
            pixels = np.ascontiguousarray(matrices["X"].transpose(3, 2, 0, 1))
            labels = matrices["y"].reshape(-1).astype(np.int64) % 10
        except Exception as error:  # MATLAB's format fails in many ways
            raise DataError(f"{path} is no SVHN file ({error}); get it again") from None
        return Images(torch.from_numpy(pixels), torch.from_numpy(labels), 10)
