"""Galleries: images before and after, and what was changed, an image a class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from raygrid.core.errors import DataError
from raygrid.core.images import Images
from raygrid.core.lazy import torch
from raygrid.reports.drawing import blank, enlarge_letters
from raygrid.reports.figures.canvas import name_columns, name_row
from raygrid.reports.figures.gallery import ChangeNormalization, stretch

if TYPE_CHECKING:
    from torch import Tensor

IMAGE_GAP_PIXELS = 2  # pixels between two images
IMAGES_INCHES, LEAST_IMAGE_INCHES = 7.0, 0.4  # inches for all images of a row, and of one of them
SHOWN_CLASSES = 10  # of which there is an image
MOST_IMAGES = 20  # images of a row, which are 0.3 inches wide on a page


def draw_changes(
    sets: Mapping[str, tuple[Images, Images]],
    normalizations: Sequence[ChangeNormalization] = ("symmetric",),
    gain: float | None = None,
    called: Callable[[Tensor], Sequence[str]] = lambda labels: (),
) -> Figure:
    """A row a set of (clean, changed) images, under a row of the clean ones.

    Of each of the first ten classes (fewer where as many would be too small on a page) one image,
    the first that all sets change; left as it is stored, right of it what was changed, once in each
    normalization (see `stretch`). gain: of the normalization of this name, shared by all sets and
    written above; by default as large as nothing that is drawn is clipped. called: what classes are
    called. Raises DataError if the sets are of different images, or nothing was changed.
    """
    cleans = [clean for clean, _ in sets.values()]
    first = cleans[0]
    if any(not torch.equal(first.pixels, other.pixels) for other in cleans[1:]):
        raise DataError("these sets are of different images; draw them one by one")
    wide, tall = 1 + len(normalizations), 1 + len(sets)
    rows = _rows(sets, min(SHOWN_CLASSES, MOST_IMAGES // wide))
    before = first.floats(rows)
    changes = {name: made.floats(rows) - before for name, (_, made) in sets.items()}
    largest = max(float(change.abs().max()) for change in changes.values())
    factor = gain if gain is not None else 0.5 / max(largest, 1e-12)

    side = max(LEAST_IMAGE_INCHES, min(0.9, IMAGES_INCHES / (wide * len(rows))))
    figure = blank(side * wide * len(rows) + 1.6, (side + 0.05) * tall + 0.9)
    grid = figure.subplots(tall, wide, squeeze=False)
    name_row(grid[0, 0], "clean")
    _show(grid[0, 0], before)
    _name(grid[0, 0], before.shape[-1], called(first.labels[rows]), side)
    for (top, head), how in zip(grid[:2, 1:].T, normalizations, strict=True):
        top.set_axis_off()
        shared = f" {factor:.3g}" if how == "gain" else ""
        head.set_title(f"changes, {how}{shared}", fontsize=8, loc="left")
    for line, (name, (_, made)) in zip(grid[1:], sets.items(), strict=True):
        name_row(line[0], name)
        _show(line[0], made.floats(rows))
        for axes, how in zip(line[1:], normalizations, strict=True):
            _show(axes, stretch(changes[name], how, factor))
    enlarge_letters(figure)
    figure.tight_layout(pad=0.4)
    return figure


def _name(axes: Axes, pixels: int, names: Sequence[str], side: float) -> None:
    """What the images of a strip are called; pixels, side: their width, the latter in inches."""
    step = pixels + IMAGE_GAP_PIXELS
    centers = [IMAGE_GAP_PIXELS + step * n + (pixels - 1) / 2 for n in range(len(names))]
    name_columns(axes, centers, names, side)


def _rows(sets: Mapping[str, tuple[Images, Images]], count: int) -> Tensor:
    """The image of each class, int64: the first that all sets change, else the first of any."""
    pairs = sets.values()
    moved = torch.stack([(a.pixels != b.pixels).flatten(1).any(1) for a, b in pairs])
    labels = next(iter(pairs))[0].labels
    some, every = (found.nonzero().squeeze(1) for found in (moved.any(0), moved.all(0)))
    if not len(some):
        raise DataError("nothing was changed, there is nothing to draw")
    ranked = torch.cat([every, some])
    present = labels[some].unique()[:count]
    return torch.stack([ranked[labels[ranked] == label][0] for label in present])


def _show(axes: Axes, pictures: Tensor) -> None:
    """Pictures float (n, C, H, W) in [0, 1] side by side, on white."""
    from torchvision.utils import make_grid

    strip = make_grid(pictures, nrow=len(pictures), padding=IMAGE_GAP_PIXELS, pad_value=1.0)
    axes.imshow(strip.permute(1, 2, 0).numpy(), interpolation="nearest")
    axes.set_frame_on(False)
    axes.set_xticks([])
    axes.set_yticks([])
