"""Picture files of strangers: which files count, and how one becomes 8-bit RGB.

Datasets and the attack `file` read pictures through this file alone, so that both take the same
files, skip the same ones, and see the same pixels.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from raygrid.core.errors import DataError
from raygrid.core.lazy import np
from raygrid.storage.limits import check_pixels

if TYPE_CHECKING:
    from PIL import Image

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
LOSSY_SUFFIXES = (".jpg", ".jpeg")
"""Those whose pixels are not the ones that were saved."""
CLUTTER_NAMES = ("thumbs.db", "desktop.ini", "__macosx")
"""What desktop systems leave behind, besides names that begin with a dot; in lower case."""

EXIF_NOTE = (
    "EXIF orientation of photographs is ignored, and transparency dropped, as torchvision does"
)
"""Said wherever a person asks what reading does to pictures."""

EIGHT_BIT_MODES = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")
TRANSPARENT_MODES = ("LA", "PA", "RGBA", "RGBa")
"""Modes that Pillow itself takes to RGB without clipping; all others it clips at 255."""

SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N")
BITS_PER_SAMPLE = 258  # a tag of TIFF
SEVERAL_FRAMES = ("MPO",)  # photographs whose further pictures are previews of the first


def visible(path: Path) -> bool:
    """Whether a file or folder is a person's own, not a system's or an editor's."""
    return not path.name.startswith(".") and path.name.lower() not in CLUTTER_NAMES


def is_picture(path: Path) -> bool:
    """Whether a file counts as a picture, by its name."""
    return path.suffix.lower() in PICTURE_SUFFIXES and visible(path)


def is_lossy(path: Path) -> bool:
    """Whether a picture's format changes pixels, by its name."""
    return path.suffix.lower() in LOSSY_SUFFIXES


def subfolders(folder: Path) -> list[Path]:
    """The visible folders of a folder, sorted by name."""
    return sorted(f for f in folder.iterdir() if visible(f) and f.is_dir())


def pictures_in(folder: Path, beside: Sequence[str] = ()) -> list[Path]:
    """The pictures of one folder, sorted by name as strings.

    Raises DataError, with the count, if visible files are no pictures or if pictures lie in
    subfolders: neither may be left out without a word. beside: names of files that may lie there.
    """
    entries = [f for f in folder.iterdir() if visible(f)]
    found = [f for f in entries if is_picture(f)]
    others = sorted(f for f in entries if not is_picture(f) and f.name not in beside)
    deeper = sum(is_picture(p) for f in others if f.is_dir() for p in f.rglob("*"))
    if deeper:
        where = next(f.name for f in others if f.is_dir() and any(map(is_picture, f.rglob("*"))))
        raise DataError(
            f"{folder} has {deeper} pictures in subfolders such as {where}/; move them up, "
            f"allowed is one folder a class with pictures alone"
        )
    files = [f for f in others if not f.is_dir()]
    if files and found:
        raise DataError(
            f"{folder} has {len(files)} files that are no pictures, such as {files[0].name}; "
            f"remove them, read are {', '.join(PICTURE_SUFFIXES)}"
        )
    return sorted(found)


@cache
def _unreadable() -> tuple[type[Exception], ...]:
    """What Pillow raises where a picture is damaged or so large that it may be an attack."""
    from PIL import Image

    bombs = (Image.DecompressionBombError, Image.DecompressionBombWarning)
    return (OSError, SyntaxError, ValueError, EOFError, zlib.error, struct.error, *bombs)


@contextmanager
def opened(path: Path, content: BinaryIO | None = None) -> Iterator[Image.Image]:
    """A picture by its header; whatever is wrong with the file is a DataError that names it.

    content: to be read in place of the file, which `path` then only names.
    """
    from PIL import Image

    try:
        with Image.open(content or path) as image:
            check_pixels(path, *image.size)
            yield image
    except _unreadable() as error:
        raise DataError(f"{path} cannot be read ({error}); replace or remove it") from None


def size_of(path: Path) -> tuple[int, int]:
    """Width and height from a picture's header."""
    with opened(path) as image:
        return image.size


def as_rgb(image: Image.Image, path: Path) -> Image.Image:
    """A picture as 8-bit RGB: gray is repeated, 16-bit gray is divided by 257 and rounded.

    Raises DataError, which names `path`, for a picture of several frames and for modes whose
    range is not known (32-bit integers and floats), since Pillow would clip them at 255.
    """
    from PIL import Image

    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format not in SEVERAL_FRAMES:
        raise DataError(f"{path} holds {frames} frames, allowed is one picture a file")
    if image.mode in SIXTEEN_BIT_MODES:
        bits = _bits(image)
        if bits != 16:
            raise DataError(f"{path} has {bits} bits a pixel, allowed are 8 and 16")
        levels = (np.asarray(image).astype(np.uint32) + 128) // 257
        return Image.fromarray(levels.astype(np.uint8)).convert("RGB")
    if image.mode not in EIGHT_BIT_MODES + TRANSPARENT_MODES:
        raise DataError(
            f"{path} has Pillow's mode {image.mode}, whose range is not known; save it with 8 or "
            f"16 bits a pixel"
        )
    return image.convert("RGB")


def _bits(image: Image.Image) -> int:
    """Bits of a gray value: TIFF files may have 12 in the mode of 16."""
    tags = getattr(image, "tag_v2", {})
    return int(tags.get(BITS_PER_SAMPLE, (16,))[0])
