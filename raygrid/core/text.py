"""Numbers, lines and names as people read them, and names as parts of file names."""

from __future__ import annotations

import math
import re
import shutil
import sys
import textwrap
from decimal import ROUND_HALF_UP, Decimal

from raygrid.core.hashing import key_of

NO_NUMBER = "–"
"""What stands where there is no number."""
DAY, YEAR = 24 * 3600, 365.25 * 24 * 3600  # seconds
FILE_NAME_LETTERS = 120
"""Letters of a name that becomes a part of a file's name; file systems take 255 bytes in all."""


def decimal(value: float, digits: int, shift: int = 0) -> str:
    """A number times ten to the `shift` with so many digits behind the point.

    It is rounded by its decimal digits, and a 5 behind the last one up in size, as papers do:
    0.8895 is 89.0 percent where its binary form, 88.94999, would be 88.9.
    """
    if not math.isfinite(value):
        return str(float(value))
    exact = Decimal(repr(float(value))).scaleb(shift)
    return str(exact.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP) + 0)


def percent(share: float | None, digits: int = 1) -> str:
    """A share in percent as a person reads it: 67.6 %, and a dash where there is none."""
    return NO_NUMBER if share is None else f"{decimal(share, digits, 2)} %"


def share_text(share: float) -> str:
    """A share in percent with all of its digits, so that no two are said alike: 0.4%, 80%."""
    return f"{100 * share:g}%"


def clock(seconds: float) -> str:
    """A duration as a person reads it: 45 s, 3:20, 2:05:00, 3.5 days, 7.3 years."""
    whole = round(seconds)
    if whole >= YEAR:
        return f"{whole / YEAR:.1f} years"
    if whole >= 2 * DAY:
        return f"{whole / DAY:.1f} days"
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def about(seconds: float) -> str:
    """An estimate as a person reads it: 45 s, 3.3 minutes, 12.5 hours, 3.5 days, 7.3 years."""
    if 60 <= round(seconds) < 2 * DAY:
        size, unit = (3600, "hours") if seconds >= 3600 else (60, "minutes")
        return f"{seconds / size:.1f} {unit}"
    return clock(seconds)


def wrapped(line: str, indent: int = 2) -> str:
    """A line in as many of a terminal as it takes, the later ones further to the right.

    Words stay whole, so that paths and specs can be copied. A pipe or a file, which programs read,
    gets the line as it is.
    """
    width = shutil.get_terminal_size().columns
    if not sys.stdout.isatty() or len(line) <= width or width < 2 * indent:
        return line
    whole = textwrap.TextWrapper(
        width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )
    return whole.fill(line)


def say(text: str) -> None:
    """Print lines, each as `wrapped` to the terminal."""
    for line in text.splitlines():
        print(wrapped(line))


def first_line(text: str | None) -> str:
    """The first line of a text; empty where there is none."""
    return next(iter((text or "").splitlines()), "")


def clipped(text: str, most: int) -> str:
    """A text of at most `most` letters (3 or more): of a longer one both ends, which tell apart."""
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def file_name_part(text: str) -> str:
    """A name as a part of a file's name: ASCII letters, digits, dots, `_` for all else.

    A name that is too long, or of which letters were lost that may tell it from another one, ends
    with a key of its own.
    """
    plain = re.sub(r"[^A-Za-z0-9.]+", "_", text).strip("_")
    lost = re.search(r"[^A-Za-z0-9._,=()/:+@ -]", text) is not None
    return (
        f"{plain[:FILE_NAME_LETTERS]}_{key_of(text)[:8]}"
        if lost or len(plain) > FILE_NAME_LETTERS
        else plain
    )
