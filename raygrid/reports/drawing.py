"""What all pictures share: paper, resolution, letters, and where guessing lies."""

from __future__ import annotations

import functools
import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.text import Text
from matplotlib.transforms import Transform

from raygrid.core.text import clipped
from raygrid.reports.tables.layout import chance_of

DPI = 150
PAGE_INCHES = 7.2
"""Inches between the margins of a page of paper; wider figures are scaled down to it."""
LEAST_FONT_POINTS = 5.0
"""Points of the smallest letters once a figure is as wide as a page."""
GUESSING_COLOR = "#b03030"
ROOMY_LEVEL = 0.09
"""The level of guessing below which there is no room for a word under it."""
CURVE_STYLES = ("o-", "s--", "^-.", "D:", "v-", "P--", "X-.", "<:")
"""Marker and line of the curves of one panel, in their order."""
LEGEND_LETTERS = 40
"""Letters of a line in a legend beside panels, which takes its room from them."""
NAME_LETTERS, LINE_LETTERS = 60, 160
"""Letters of a name beside a row or column, and of a line; of longer ones both ends are shown."""


class PlainFigure(Figure):
    """A figure that shows texts as they are: names of people's files and classes are no markup."""

    def draw(self, renderer: Any) -> None:
        self._as_written()
        super().draw(renderer)

    def tight_layout(self, **sizes: Any) -> None:
        self._as_written()
        super().tight_layout(**sizes)

    def _as_written(self) -> None:
        """Leave out the numbers at axes, whose markup is matplotlib's own; see `name_ticks`."""
        axes = [axis for each in self.axes for axis in (each.xaxis, each.yaxis)]
        ticks = [tick for axis in axes for tick in (*axis.majorTicks, *axis.minorTicks)]
        numbers = {id(label) for tick in ticks for label in (tick.label1, tick.label2)}
        for text in self.findobj(Text):
            if isinstance(text, Text) and id(text) not in numbers:
                text.set_parse_math(False)
                text.set_text(legible(text.get_text()))


def legible(text: str) -> str:
    """A text that the font can show: a letter that it lacks becomes its number, U+4E2D."""
    lines = [clipped(line, LINE_LETTERS) for line in text.split("\n")]
    return "\n".join("".join(map(_glyph, line)) for line in lines)


def _glyph(char: str) -> str:
    if char.isspace():
        return " "
    known = char.isprintable() and _has(tuple(rcParams["font.family"]), char)
    return char if known else f"U+{ord(char):04X}"


@functools.cache
def _has(families: tuple[str, ...], char: str) -> bool:
    """Whether one of the fonts has a letter."""
    fonts = (get_font(findfont(FontProperties(family=[name]))) for name in families)
    return any(font.get_char_index(ord(char)) for font in fonts)


def folded(text: str, width: int) -> str:
    """A text in lines of about `width` letters, cut in its middle if it needs more than four.

    Words stay whole unless they are longer than two lines.
    """
    text = clipped(" ".join(text.split()), 4 * width)
    longest = max(map(len, text.split()), default=0)
    return textwrap.fill(text, width, break_long_words=longest > 2 * width)


def name_ticks(
    axis: Axis,
    places: Sequence[float],
    names: Sequence[str],
    most: int = NAME_LETTERS,
    **style: Any,
) -> None:
    """Put names of at most so many letters at an axis, shown as they are."""
    shown = [legible(clipped(" ".join(name.split()), most)) for name in names]
    axis.set_ticks(places, [name.replace("$", r"\$") for name in shown], **style)


def bright(color: Sequence[float]) -> bool:
    """Whether black is easier to read on a color than white (WCAG 2: relative luminance)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return bool(luminance > 0.179)


def blank(width: float, height: float) -> Figure:
    """An empty figure (inches) drawn by Agg, unknown to pyplot."""
    figure = PlainFigure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def mark_chance(
    axes: Axes, datasets: Iterable[str], along: Literal["x", "y", "both"] = "y"
) -> None:
    """Draw the accuracy of guessing as a dotted line, if it is known and the same for all.

    along: the axis, in percent, that holds accuracies.
    """
    found = {chance_of(str(name)) for name in datasets}
    chance = found.pop() if len(found) == 1 else None
    if chance is None:
        return
    style: dict[str, Any] = {"color": GUESSING_COLOR, "lw": 0.9, "ls": (0, (1, 1.5)), "zorder": 0.5}
    if along != "x":
        axes.axhline(100 * chance, **style)
        place = axes.get_yaxis_transform()
        # Victims of good poisons end just above it, so their lines would run through the word.
        va: Literal["top", "bottom"] = "top" if chance >= ROOMY_LEVEL else "bottom"
        _say(axes, (0.99, 100 * chance), place, ha="right", va=va)
    if along != "y":
        axes.axvline(100 * chance, **style)
        if along == "x":
            _say(axes, (100 * chance, 0.99), axes.get_xaxis_transform(), ha="left", va="top")


def _say(
    axes: Axes,
    spot: tuple[float, float],
    place: Transform,
    ha: Literal["left", "right"],
    va: Literal["top", "bottom"],
) -> None:
    axes.text(*spot, " chance ", transform=place, fontsize=6.5, color=GUESSING_COLOR, ha=ha, va=va)


def enlarge_letters(figure: Figure) -> None:
    """Make letters larger that would be below LEAST_FONT_POINTS in a figure as wide as a page."""
    least = LEAST_FONT_POINTS * max(1.0, figure.get_figwidth() / PAGE_INCHES)
    for text in figure.findobj(Text):
        text.set_fontsize(max(text.get_fontsize(), math.ceil(10 * least) / 10))
