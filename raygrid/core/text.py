"""Numbers and lines as people read them."""

from __future__ import annotations

import shutil
import sys
import textwrap

DAY, YEAR = 24 * 3600, 365.25 * 24 * 3600  # seconds


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
