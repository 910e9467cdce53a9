"""A gallery of one poison: images before and after, and what was changed, stretched to be seen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from raygrid.core.errors import DataError, SpecError
from raygrid.core.lazy import torch
from raygrid.core.spec import Part, split_outside
from raygrid.core.text import clipped
from raygrid.datasets import DATASETS
from raygrid.trials.examples import first_of_classes
from raygrid.trials.poisons import Poisoned

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont, ImageFont
    from torch import Tensor

TILE_PIXELS = 96  # pixels of an image in a gallery, about
LEFT_PIXELS, TOP_PIXELS, TILE_GAP_PIXELS = 84, 54, 4  # pixels beside, above and between the images
LETTER_PIXELS = 14  # pixels


def gallery(poisoned: Poisoned, path: Path, classes: int = 10, data: Path | None = None) -> Path:
    """Draw one touched image a class: clean, the change, poisoned; see `draw_gallery`.

    data: the data folder, which may know what the classes are called.

    Draws the first `classes` classes that have a touched image. Raises DataError if there is none.
    """
    if not poisoned.replaced or not bool(poisoned.mask.any()):
        raise DataError(f"{poisoned.spec} has no changed image to draw")
    touched = poisoned.mask.nonzero().squeeze(1)
    rows = touched[first_of_classes(poisoned.clean.labels[touched], classes)]
    before, after = poisoned.clean.pixels[rows], poisoned.images.pixels[rows]
    labels = poisoned.clean.labels[rows]
    names = names_of_classes(poisoned.spec, labels, data)
    return draw_gallery(before, after, names, poisoned.spec, path)


def names_of_classes(
    spec: str, labels: Iterable[int] | Tensor, data: Path | None = None
) -> list[str]:
    """What the classes of a dataset are called; numbered where nobody knows, or it is not here.

    spec: of a trial or poison, which begins with the dataset. data: the data folder.
    """
    names: tuple[str, ...] = ()
    with suppress(SpecError, DataError, OSError):
        made = DATASETS.make(Part.parse(next(iter(split_outside(spec, "/")))))
        names = made.class_names if data is None else made.named_classes(data)
    numbers = map(int, labels)
    return [names[n] if n < len(names) else f"class {n}" for n in numbers]


def draw_gallery(
    before: Tensor, after: Tensor, names: Sequence[str], title: str, path: Path
) -> Path:
    """Draw images uint8 (n, C, H, W) in three rows: clean, the change, poisoned.

    Gray is no change; all changes are enlarged by one factor, which is written beside them, as far
    as nothing is clipped. Writes a picture whose kind follows the suffix of `path`.
    """
    from PIL import Image, ImageDraw
    from PIL.ImageFont import load_default

    change = (after.float() - before.float()) / 255
    largest = float(change.abs().max())
    factor = 0.5 / largest if largest else 1.0
    shown = stretch(change, "gain", factor).mul(255).round().to(torch.uint8)
    side = max(1, TILE_PIXELS // before.shape[-1]) * before.shape[-1]
    font = load_default(LETTER_PIXELS)
    title = clipped(_in_latin(title), 200)
    width = max(
        LEFT_PIXELS + len(names) * (side + TILE_GAP_PIXELS),
        LEFT_PIXELS + int(font.getlength(title)) + TILE_GAP_PIXELS,
    )
    sheet = Image.new("RGB", (width, TOP_PIXELS + 3 * (side + TILE_GAP_PIXELS)), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((LEFT_PIXELS, 6), title, "black", font)
    for column, name in enumerate(names):
        pen.text(
            (LEFT_PIXELS + column * (side + TILE_GAP_PIXELS), TOP_PIXELS - 22),
            _fitting(_in_latin(name), side, font),
            "black",
            font,
        )
    heads = ("clean", f"change\nx {factor:.3g}\n(+-{255 * largest:.0f}/255)", "poisoned")
    for line, (head, pictures) in enumerate(zip(heads, (before, shown, after), strict=True)):
        top = TOP_PIXELS + line * (side + TILE_GAP_PIXELS)
        pen.multiline_text((4, top + 4), head, "black", font)
        for column, pixels in enumerate(pictures):
            tile = Image.fromarray(pixels.expand(3, -1, -1).permute(1, 2, 0).numpy())
            place = LEFT_PIXELS + column * (side + TILE_GAP_PIXELS), top
            sheet.paste(tile.resize((side, side), Image.Resampling.NEAREST), place)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
    return path


def _in_latin(text: str) -> str:
    """A text in one line of letters that Pillow's own font has; others become their number."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() and c < "\u0180" else f"U+{ord(c):04X}" for c in line)


def _fitting(name: str, width: int, font: FreeTypeFont | ImageFont) -> str:
    """A name, or as much of its beginning as is no wider than an image."""
    name = name[:width]  # no letter is narrower than a pixel
    while name and font.getlength(name) > width:
        name = name[:-1]
    return name


ChangeNormalization = Literal["minmax", "symmetric", "gain"]


def stretch(change: Tensor, how: ChangeNormalization = "symmetric", gain: float = 1.0) -> Tensor:
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
