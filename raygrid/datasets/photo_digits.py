"""The embedded dataset: handwritten digits blended onto photographs. No file, no network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from raygrid.core.errors import DataError
from raygrid.core.images import Images
from raygrid.core.lazy import np, torch
from raygrid.core.registry import Card, require
from raygrid.core.seeds import derive_seed
from raygrid.datasets.base import DATASETS, Dataset, Split

if TYPE_CHECKING:
    from numpy.typing import NDArray

PixelArray: TypeAlias = "NDArray[Any]"
IMAGE_SIDE = 32
MOST_EVERY = (
    20  # with fewer images than a twentieth a class is about to be missing in the test part
)


@DATASETS.register("photo_digits")
@dataclass(frozen=True, kw_only=True)
class PhotoDigits(Dataset):
    """scikit-learn's 1,797 digits (8x8) on crops of its two photographs, 32x32 RGB.

    Blending is the absolute difference, as in MNIST-M. Each training digit is used three times on
    three crops, each test digit three times too. Test digits and the right quarter of both
    photographs never occur in training.
    """

    card = Card(
        paper="blending: Ganin et al. 2016, section 5.2.4 (MNIST-M); digits: Alpaydin and Kaynak "
        "1998; photographs: scikit-learn's china.jpg and flower.jpg",
        code="scikit-learn sklearn.datasets",
        notes="flipping a digit changes its class, so standard augmentation is the crop alone",
    )
    classes: ClassVar[int] = 10
    image_size: ClassVar[int] = IMAGE_SIDE
    train_size: ClassVar[int] = 4311
    test_size: ClassVar[int] = 1080
    augmentation: ClassVar[str] = "crop"
    class_names: ClassVar[tuple[str, ...]] = tuple("0123456789")

    every: int = 1  # of both parts the first image and each so many after it, for rehearsals

    def __post_init__(self) -> None:
        allowed = 1 <= self.every <= MOST_EVERY
        require(allowed, f"every is {self.every}, allowed are whole numbers from 1 to {MOST_EVERY}")
        for name in ("train_size", "test_size"):
            size = getattr(type(self), name)
            object.__setattr__(self, name, -(-size // self.every))

    def source(self, root: Path) -> str:
        return "scikit-learn"

    def download(self, root: Path) -> None:
        raise DataError(f"{self.id} is made of what comes with scikit-learn and needs no files")

    def load(self, root: Path) -> Split:
        from sklearn.datasets import load_digits

        digits = load_digits()
        order = np.random.default_rng(derive_seed("photo_digits", "split")).permutation(1797)
        photos = _photos()
        train, test = order[:1437], order[1437:]
        return Split(
            train=self._blend(digits, train, [p[:, : 3 * p.shape[1] // 4] for p in photos], "tr"),
            test=self._blend(digits, test, [p[:, 3 * p.shape[1] // 4 :] for p in photos], "te"),
        )

    def _blend(
        self, digits: object, chosen: PixelArray, photos: list[PixelArray], part: str
    ) -> Images:
        rng = np.random.default_rng(derive_seed("photo_digits", part))
        index = np.repeat(chosen, 3)
        grays = digits.images[index]  # type: ignore[attr-defined]
        levels = np.clip(grays * 16, 0, 255).astype(np.int16)
        enlarged = levels.repeat(4, axis=1).repeat(4, axis=2)
        backs = np.stack([_crop(photos[rng.integers(2)], rng) for _ in index]).astype(np.int16)
        blended = np.abs(backs - enlarged[..., None]).astype(np.uint8)
        pixels = torch.from_numpy(np.ascontiguousarray(blended.transpose(0, 3, 1, 2)))
        labels = torch.from_numpy(digits.target[index]).long()  # type: ignore[attr-defined]
        return Images(pixels, labels, self.classes).rows(torch.arange(0, len(labels), self.every))


def _photos() -> list[PixelArray]:
    """The two photographs at half size, so that a 32x32 crop shows some structure."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    halves = []
    for photo in load_sample_images().images:
        image = Image.fromarray(photo)
        half = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
        halves.append(np.asarray(half))
    return halves


def _crop(photo: PixelArray, rng: np.random.Generator) -> PixelArray:
    top = rng.integers(photo.shape[0] - IMAGE_SIDE + 1)
    left = rng.integers(photo.shape[1] - IMAGE_SIDE + 1)
    return photo[top : top + IMAGE_SIDE, left : left + IMAGE_SIDE]
