"""Explanations of images: maps of what a network looks at, below the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from raygrid.core.images import Images
from raygrid.core.labels import telling
from raygrid.core.lazy import np
from raygrid.reports.drawing import blank
from raygrid.reports.figures.canvas import name_columns, name_row

if TYPE_CHECKING:
    from torch import Tensor

MAP_INCHES = 0.68  # inches of an image with what is around it
SIGNED_NOTE = "Red: speaks for the class; blue: against it. Each map has a scale of its own."
UNSIGNED_NOTE = "Red: what the score of the class rests on most; blue: least."


def draw_maps(
    images: Images, maps: Mapping[str, Tensor], signed: bool, called: Sequence[str] = ()
) -> Figure:
    """Images (one a column) above the maps (n, H, W) of each spec (one a row).

    Unsigned maps lie in [0, 1] and are laid over the image; signed ones are red where positive and
    blue where negative, each scaled by its own 99th percentile. called: the class of each image.
    """
    pictures = images.pixels.permute(0, 2, 3, 1).cpu().numpy()
    height = MAP_INCHES * (len(maps) + 1) + 0.65
    figure = blank(MAP_INCHES * len(pictures) + 1.4, height)
    grid = figure.subplots(len(maps) + 1, len(pictures), squeeze=False)
    for axes, picture in zip(grid[0], pictures, strict=True):
        axes.imshow(picture, interpolation="nearest")
    names = telling(list(maps))
    for line, (spec, drawn) in zip(grid[1:], maps.items(), strict=True):
        name_row(line[0], names[spec])
        for axes, picture, values in zip(line, pictures, drawn.numpy(), strict=True):
            if signed:
                bound = float(np.percentile(np.abs(values), 99)) or 1.0
                axes.imshow(values, cmap="seismic", vmin=-bound, vmax=bound)
            else:
                axes.imshow(picture, interpolation="nearest")
                axes.imshow(values, cmap="jet", vmin=0, vmax=1, alpha=0.5)
    for axes in grid.flat:
        axes.set_xticks([])
        axes.set_yticks([])
    middle = (pictures.shape[2] - 1) / 2
    for axes, name in zip(grid[0], called, strict=False):
        name_columns(axes, [middle], [name], MAP_INCHES)
    caption = SIGNED_NOTE if signed else UNSIGNED_NOTE
    figure.text(0.01, 0.02, caption, fontsize=7, color="#444444", va="bottom")
    figure.set_label(caption)
    figure.tight_layout(rect=(0, 0.2 / height, 1, 1), pad=0.4)
    return figure
