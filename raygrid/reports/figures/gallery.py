"""A gallery of one poison: images before and after, and what was changed, stretched to be seen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from raygrid.core.errors import DataError
from raygrid.core.lazy import torch
from raygrid.trials.poisons import Poisoned

if TYPE_CHECKING:
    from torch import Tensor


def gallery(poisoned: Poisoned, path: Path, classes: int = 10) -> Path:
    """Draw one touched image a class: clean, the change stretched to the full range, poisoned.

    Gray is no change. Writes a picture whose kind follows the suffix of `path`; draws the first
    `classes` classes that have a touched image. Raises DataError if there is none.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = _examples(poisoned, classes)
    before = poisoned.clean.pixels[rows].permute(0, 2, 3, 1).float() / 255
    after = poisoned.images.pixels[rows].permute(0, 2, 3, 1).float() / 255
    lines = {"clean": before, "change": stretch(after - before), "poisoned": after}
    figure = Figure(figsize=(0.9 * len(rows) + 0.6, 3.2))
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, len(rows), squeeze=False)
    for line, (name, pictures) in zip(axes, lines.items(), strict=True):
        for axis, picture, row in zip(line, pictures, rows.tolist(), strict=True):
            axis.imshow(picture.numpy(), interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            if name == "clean":
                axis.set_title(f"class {int(poisoned.clean.labels[row])}", fontsize=7)
        line[0].set_ylabel(name, fontsize=8)
    figure.suptitle(poisoned.spec, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path


def _examples(poisoned: Poisoned, classes: int) -> Tensor:
    """The first touched row of each of the first classes, int64."""
    if not poisoned.replaced or not bool(poisoned.mask.any()):
        raise DataError(f"{poisoned.spec} has no changed image to draw")
    touched = poisoned.mask.nonzero().squeeze(1)
    labels = poisoned.clean.labels[touched]
    present = labels.unique()[:classes]
    return torch.stack([touched[labels == label][0] for label in present])


Normalization = Literal["minmax", "symmetric", "gain"]


def stretch(change: Tensor, how: Normalization = "symmetric", gain: float = 1.0) -> Tensor:
    """Changes float (n, ...) as pictures in [0, 1].

    minmax: each from its smallest to its largest value. symmetric: each over its largest absolute
    value, 0.5 is none. gain: 0.5 + gain * change for all of them, clipped. No change is gray.
    """
    if how == "gain":
        return (0.5 + gain * change).clamp(0, 1)
    flat = change.flatten(1)
    low, high = flat.amin(1), flat.amax(1)
    if how == "symmetric":
        high = flat.abs().amax(1)
        low = -high
    low, high = (end.view(-1, *[1] * (change.dim() - 1)) for end in (low, high))
    return torch.where(high > low, (change - low) / (high - low).clamp_min(1e-12), 0.5)
