"""The verbs on images: load a dataset, poison it, purify it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from raygrid.api.arrays import as_images
from raygrid.api.given import (
    UNNAMED,
    GivenCatalog,
    GivenImages,
    in_memory,
    place_of,
    refuse_derived,
    resolve_given,
)
from raygrid.attacks import ATTACKS
from raygrid.core.errors import SpecError
from raygrid.core.flags import checked_path
from raygrid.core.images import Images
from raygrid.core.spec import parse_ratio
from raygrid.datasets import DATASETS
from raygrid.datasets.base import Split
from raygrid.trials import poisons, privileges
from raygrid.trials.artifacts.purified import purified_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def dataset(name: str, data: str | Path = "data") -> Split:
    """Load a dataset: `.train` and `.test` are `Images`.

    name: a dataset as in a spec, `cifar10` or `folder(name=mine)`. data: the folder with the
    datasets' files; `photo_digits` needs none.

    Returns a `Split`; pixels are uint8 (N, C, H, W) in [0, 255], labels int64 (N,).
    Raises SpecError for an unknown name, DataError if the files are missing or damaged, and if a
    dataset of your own loads others than it states.

    >>> digits = dataset("photo_digits")
    >>> digits.train.pixels.dtype, tuple(digits.train.shape), digits.train.classes
    (torch.uint8, (3, 32, 32), 10)
    """
    made, root = DATASETS.make(name), checked_path("data", data).absolute()
    made.source(root)  # says which file is missing before anything is decoded
    return made.seen(root).loaded(root)


def poison(
    images: Images | tuple[ArrayLike, ArrayLike],
    attack: str,
    *,
    ratio: float = 1.0,
    seed: int = 0,
    name: str = UNNAMED,
    classes: int | None = None,
) -> Images:
    """Poison a training set with an attack; labels and order stay.

    images: `Images`, or a pair (pixels, labels): uint8 (N, 3, S, S) or (N, S, S, 3) in [0, 255],
        N integers from 0.
    attack: an attack as in a spec, `lsp` or `em(budget=16/255, surrogate=small_cnn)`. Its
        surrogates are trained here and now, on a GPU if there is one.
    ratio: the share of the images that is poisoned, 0 to 1; which ones, the seed decides.
    seed: a whole number from 0. The same arguments give the same bytes on one kind of machine.
    name: the dataset's name that the draws depend on; with a dataset's own training images and its
        name the result is the poison that a grid makes for it.
    classes: the number of classes, by default one more than the largest label.

    Returns `Images` within the attack's budget, which is measured on the 8-bit pixels.
    Raises DataError for images of another form, SpecError for an unknown attack or parameter, a
    ratio outside 0 to 1 or of less than one image, and for an attack that needs what images alone
    do not have (a target).

    >>> clean = dataset("photo_digits(every=20)").train
    >>> poisoned = poison(clean, "regions(n=16, budget=8/255)")
    >>> int((poisoned.pixels.int() - clean.pixels.int()).abs().max())
    8
    """
    given = GivenImages.of(as_images(images, classes), None, name)
    share = parse_ratio(str(ratio))
    made = ATTACKS.make(attack)
    if made.sees_test:
        raise SpecError(f"{attack} {privileges.of_attack(attack)}, and no test set is given here")
    if made.on_target:
        raise SpecError(
            f"{attack} is made for one target image, which a protocol chooses: run it on a grid, "
            "for example under just_how_toxic"
        )
    text = f"{place_of(given)}/{attack}@{share!r}"
    return poisons.make(text, GivenCatalog(given), in_memory(), seed).images


def purify(
    images: Images | tuple[ArrayLike, ArrayLike],
    defense: str,
    *,
    seed: int = 0,
    name: str = UNNAMED,
    classes: int | None = None,
) -> Images:
    """Change a stored training set as a purifying defense does before training.

    images, seed, name, classes: see `poison`. defense: a defense or a chain as in a spec, `jpeg`
    or `grayscale+jpeg(quality=10)`. Defenses that act during training (`mixup`, `at`) are options
    of `train`.

    Returns `Images` with the same labels in the same order.
    Raises DataError for images of another form, SpecError for an unknown defense and for a chain
    with a link that does not change stored images.

    >>> clean = dataset("photo_digits(every=20)").train
    >>> gray = purify(clean, "grayscale")
    >>> bool((gray.pixels[:, 0] == gray.pixels[:, 2]).all())
    True
    """
    given = GivenImages.of(as_images(images, classes), None, name)
    spec = f"{place_of(given)}/clean/{defense}/small_cnn/supervised/quick/{seed}"
    trial = resolve_given(spec, given)
    refuse_derived(trial, defense, "purifies")
    idle = [str(link.part()) for link in trial.defense.links if link not in trial.defense.purifiers]
    if idle or trial.purified is None:
        raise SpecError(
            f"{', '.join(idle)} does not change stored images but acts during training: "
            f"use train(..., defense={defense!r})"
        )
    return purified_of(in_memory()(trial.purified))
