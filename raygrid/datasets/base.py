"""What a dataset is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from raygrid.core.errors import DataError, RaygridError, in_one_line
from raygrid.core.images import Images
from raygrid.core.registry import Method, Registry


@dataclass(frozen=True)
class Split:
    """A dataset in memory: both parts share `classes` and the image shape."""

    train: Images
    test: Images


@dataclass(frozen=True)
class Facts:
    """What can be known of a dataset without decoding it.

    image_size: height and width. looked_at: whether the sizes are exactly those of the data there.
    lossy: whether some images lie in JPEG files.
    """

    classes: int
    image_size: int
    train_size: int
    test_size: int
    looked_at: bool = True
    lossy: bool = False


@dataclass(frozen=True, kw_only=True)
class Dataset(Method):
    """A labeled image set with a fixed training and test part.

    classes, image_size (H = W), train_size, test_size: of the official data, known before anything
    is looked at; a dataset returned by `seen` has those of the data at hand instead.
    augmentation: what "standard augmentation" means here, a name that `nn.augment.standard` knows:
        `crop_flip`, `crop`, `rrc_flip` or `none`. A protocol may have its source's in its place.
    mean, std: per channel in [0, 1], for protocols that normalize inside the model.
    pretraining: the dataset of other classes that extractors are pre-trained on; empty: itself.
    """

    classes: ClassVar[int]
    image_size: ClassVar[int]
    train_size: ClassVar[int]
    test_size: ClassVar[int]
    augmentation: ClassVar[str] = "crop_flip"
    mean: ClassVar[tuple[float, float, float]] = (0.5, 0.5, 0.5)
    std: ClassVar[tuple[float, float, float]] = (0.25, 0.25, 0.25)
    pretraining: ClassVar[str] = ""
    class_names: ClassVar[tuple[str, ...]] = ()  # in the order of the labels
    lossless: ClassVar[bool] = False  # whether the official files have every pixel as it was
    lossy: ClassVar[bool] = False  # whether data at hand are JPEG files (see `seen`)
    looked_at: ClassVar[bool] = False  # whether the sizes are those of data at hand (see `seen`)
    official_sizes: ClassVar[bool] = True  # whether there is one set that everybody means
    exact_sizes: ClassVar[bool] = True  # whether the stated sizes are those of that set

    @classmethod
    def lacking(cls) -> Iterable[str]:
        for name in ("classes", "image_size", "train_size", "test_size"):
            value = getattr(cls, name)
            if type(value) is not int or value < 1:
                yield f"{name} is {value!r}, allowed are whole numbers from 1"

    @abstractmethod
    def source(self, root: Path) -> str:
        """Name the content to be loaded cheaply (a version, or sizes and times of files).

        `root` is the data folder. Raises DataError that names the path if the data are not there.
        """

    @abstractmethod
    def load(self, root: Path) -> Split:
        """Decode everything; raises DataError that names the damaged file and what to do.

        Both parts are square RGB images of the stated side, classes and sizes; see `checked`.
        Callers use `loaded`.
        """

    def loaded(self, root: Path) -> Split:
        """What `load` gives, checked; raises DataError that names this dataset for all that fails.

        A lack of memory is no fault of the data and stays what it is.
        """
        try:
            split = self.load(root)
        except (RaygridError, MemoryError):
            raise
        except Exception as error:  # whatever the code of a dataset of one's own raises
            why = f"{type(error).__name__}: {in_one_line(error)}"
            raise DataError(f"{self.part()} cannot be loaded from {root}: {why}") from error
        return self.checked(split)

    def describe(self, root: Path) -> Facts:
        """Look, without decoding, what lies under `root`; raises DataError like `source`."""
        return replace(self.nominal, looked_at=True)

    def checked(self, split: Split) -> Split:
        """The same split; raises DataError for one that is not what this dataset says it holds.

        Sizes count where they are known exactly (see `seen`): seeds, shards and shares go by them.
        """
        if fault := _no_split(split):
            raise DataError(
                f"load of {self.part()} returns {fault}, allowed is "
                "raygrid.Split(train=Images(...), test=Images(...))"
            )
        said, given = self.nominal, (("train", split.train), ("test", split.test))
        sizes = (said.train_size, said.test_size) if said.looked_at else (None, None)
        named = zip(given, sizes, strict=True)
        faults = [f"{part}: {odd}" for (part, i), n in named for odd in _faults(i, said, n)]
        if faults:
            raise DataError(f"{self.part()} loads other data than it states: {'; '.join(faults)}")
        return split

    @property
    def nominal(self) -> Facts:
        sizes = self.train_size, self.test_size
        return Facts(self.classes, self.image_size, *sizes, self.looked_at, self.lossy)

    def seen(self, root: Path) -> Self:
        """This dataset, equal to itself, with the sizes of the data under `root`."""
        known = replace(self)
        for name, value in asdict(self.describe(root)).items():
            object.__setattr__(known, name, value)  # on the instance, over the class's value
        return known

    def other_data(self) -> str:
        """How the data at hand differ from the official ones, such as `250 of 50,000 images`.

        Empty if they do not, where nobody looked (see `seen`), and for data that have no official
        form. Sizes that are stated roughly may be off by a tenth.
        """
        if not self.official_sizes:
            return ""
        stated = replace(self)  # sizes are set anew, as of the official data
        pairs = (
            (self.train_size, stated.train_size, ""),
            (self.test_size, stated.test_size, "test "),
        )
        slack = 0.0 if self.exact_sizes else 0.1
        odd = (
            f"{have:,} of {official:,} {part}images"
            for have, official, part in pairs
            if abs(have - official) > slack * official
        )
        return ", ".join(odd)

    def other_files(self) -> str:
        """`JPEG files` where data at hand are that and the official files are lossless, else empty.

        Empty as well where nobody looked (see `seen`).
        """
        return "JPEG files" if self.lossless and self.lossy else ""

    def shares_images(self, other: Dataset) -> bool:
        """Whether it is known that some of these images are the other one's too."""
        return self.id == other.id

    def named_classes(self, root: Path) -> tuple[str, ...]:
        """What the classes are called, in the order of the labels; empty where nobody says.

        `root` is the data folder, where nothing is decoded. Raises DataError like `source`.
        """
        return self.class_names

    @property
    def folder(self) -> str:
        """The folder's name under the data root."""
        return self.id

    @property
    def downloads(self) -> bool:
        """Whether `download` knows where the official files are."""
        return type(self).download is not Dataset.download

    def download(self, root: Path) -> None:
        """Fetch the official files into `root`; raises DataError where that is not possible."""
        raise DataError(f"{self.id} cannot be downloaded; put its files under {root / self.folder}")


def _no_split(found: Any) -> str:
    """What was returned in the place of a split of images, empty if it is one."""
    if not isinstance(found, Split):
        return f"a value of type {type(found).__name__}"
    kinds = [type(part).__name__ for part in (found.train, found.test)]
    images = all(isinstance(part, Images) for part in (found.train, found.test))
    return "" if images else f"a Split of {' and '.join(kinds)}"


def _faults(images: Images, said: Facts, size: int | None) -> Iterator[str]:
    """How a part of a dataset differs from what is said of it; size: of this part, if known."""
    shape = (3, said.image_size, said.image_size)
    if images.shape != shape:
        yield f"images are {_times(images.shape)}, stated are {_times(shape)}"
    if images.classes != said.classes:
        yield f"{images.classes} classes, stated are {said.classes}"
    if size is not None and len(images) != size:
        yield f"{len(images):,} images, stated are {size:,}"
    if not len(images):
        yield "it is empty, wanted is one image or more"
        return
    low, high = int(images.labels.min()), int(images.labels.max())
    if low < 0 or high >= said.classes:
        wrong = low if low < 0 else high
        yield f"label {wrong}, those of {said.classes} classes are 0 to {said.classes - 1}"


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


DATASETS: Registry[Dataset] = Registry("dataset", Dataset, "folder(name={})")  # type: ignore[type-abstract]
