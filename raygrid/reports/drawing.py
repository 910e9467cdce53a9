"""What all pictures share: paper, resolution, and where guessing lies."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Transform

from raygrid.reports.tables.layout import chance_of

DPI = 150
PAGE = 7.2
"""Inches between the margins of a page of paper; wider figures are scaled down to it."""
LEAST = 5.0
"""Points of the smallest letters once a figure is as wide as a page."""
GUESSING = "#b03030"


def blank(width: float, height: float) -> Figure:
    """An empty figure (inches) drawn by Agg, unknown to pyplot."""
    figure = Figure(figsize=(width, height), dpi=DPI)
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
    style: dict[str, Any] = {"color": GUESSING, "lw": 0.9, "ls": (0, (1, 1.5)), "zorder": 0.5}
    if along != "x":
        axes.axhline(100 * chance, **style)
        place = axes.get_yaxis_transform()
        _say(axes, (0.99, 100 * chance), place, ha="right", va="bottom")
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
    axes.text(*spot, " chance ", transform=place, fontsize=6.5, color=GUESSING, ha=ha, va=va)


def enlarge_letters(figure: Figure) -> None:
    """Make letters larger that would be below LEAST points with the figure as wide as a page."""
    least = LEAST * max(1.0, figure.get_figwidth() / PAGE)
    for text in figure.findobj(Text):
        text.set_fontsize(max(text.get_fontsize(), math.ceil(10 * least) / 10))
