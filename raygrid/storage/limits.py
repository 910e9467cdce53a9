"""How much a file of strangers may come to once it is unpacked; asked before it is unpacked.

A person raises the limits by environment variables: `RAYGRID_MAX_GIB` for archives and arrays,
`RAYGRID_MAX_PIXELS` for a picture.
"""

from __future__ import annotations

import math
import os
import shutil
import zipfile
from pathlib import Path

from raygrid.core.errors import DataError

GIB = 2**30
MAX_GIB_VARIABLE, MAX_PIXELS_VARIABLE = "RAYGRID_MAX_GIB", "RAYGRID_MAX_PIXELS"
LARGEST_PICTURE = 64e6  # pixels; a frame of a good camera has 50 million
LARGEST_ARCHIVE = 64 * GIB  # ImageNet-100 in its original sizes has 17
LARGEST_ARRAYS = 16 * GIB  # a perturbation of 126,000 images of 64 pixels in float32 has 6


def _raised(variable: str, usual: float) -> float:
    """A limit: that of the environment, else the usual one; DataError if it is no number."""
    text = os.environ.get(variable)
    if not text:
        return usual
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value > 0:
        raise DataError(f"{variable} is {text!r}, allowed are numbers above 0")
    return value


def most_bytes(usual: float) -> float:
    """Bytes that may be unpacked where `usual` is enough for what is expected."""
    return _raised(MAX_GIB_VARIABLE, usual / GIB) * GIB


def check_bytes(path: Path, size: float, usual: float) -> None:
    """Raise DataError if `path` comes to more bytes than are allowed."""
    most = most_bytes(usual)
    if size > most:
        raise DataError(
            f"{path} comes to {size / GIB:.3g} GiB unpacked, allowed here are {most / GIB:.3g}; "
            f"{MAX_GIB_VARIABLE} raises that"
        )


def check_disk(path: Path, size: float, folder: Path) -> None:
    """Raise DataError if an archive comes to more than is allowed, or than the disk has room for.

    folder: where it is to be unpacked.
    """
    check_bytes(path, size, LARGEST_ARCHIVE)
    free = shutil.disk_usage(folder).free
    if size > free:
        raise DataError(
            f"{path} comes to {size / GIB:.3g} GiB unpacked, and {folder} has {free / GIB:.3g} "
            f"left; TMPDIR names a larger disk"
        )


def unpacked_size(packed: zipfile.ZipFile) -> int:
    """What the members of a zip file say that they come to; none is read any further than that."""
    return sum(member.file_size for member in packed.infolist())


def check_pixels(path: Path, width: int, height: int) -> None:
    """Raise DataError if a picture has more pixels than are allowed."""
    most = _raised(MAX_PIXELS_VARIABLE, LARGEST_PICTURE)
    if width * height > most:
        raise DataError(
            f"{path} has {width}x{height} pixels, allowed are {most:.3g} in all; "
            f"{MAX_PIXELS_VARIABLE} raises that"
        )
