"""Panels as pictures: heatmaps (`heatmaps.py`), curves, and peak against final accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from raygrid.core.text import NO_NUMBER
from raygrid.reports.drawing import (
    CURVE_STYLES,
    LEGEND_LETTERS,
    blank,
    folded,
    mark_chance,
    name_ticks,
)
from raygrid.reports.tables.cell_text import measured_text
from raygrid.reports.tables.cells import Cell
from raygrid.reports.tables.heatmaps import heatmap, own_number
from raygrid.reports.tables.layout import ACCURACIES, MEASURE_NAMES, Panel
from raygrid.reports.tables.notes import head

AXIS_INCHES = 4.0  # of an axis beside a legend
CHAR_INCHES, NAME_GAP_INCHES = 0.065, 0.1  # of a letter, and between names


def picture(panel: Panel) -> Figure:
    """The panel as the picture that suits it; draws nothing on screen, keeps no global state."""
    if panel.numeric is not None:
        return _curves(panel)
    return _dumbbells(panel) if panel.against_peak else heatmap(panel)


def _curves(panel: Panel) -> Figure:
    figure = blank(7.2, 4.2)
    axes = figure.add_subplot()
    heads = [head(panel, column) for column in panel.columns]
    spots, across = _spots(panel.numeric or (), heads), panel.across
    if tuple(spots) != panel.numeric:
        across = f"{across}, not to scale"
    # Nothing poisoned and no budget are the clean set; the quality of a compression is not.
    control = panel.cells.get(("clean", panel.columns[0])) if panel.from_clean else None
    names = [row for row in panel.rows if row != "clean" or not panel.from_clean]
    for number_, row in enumerate(names):
        line = [panel.cells.get((row, column)) for column in panel.columns]
        measured = sum(cell is not None and cell.value is not None for cell in line)
        if control is not None and line[0] is None and measured > 1:
            line[0] = control
        _curve(
            axes,
            spots,
            line,
            folded(head(panel, row), LEGEND_LETTERS),
            CURVE_STYLES[number_ % len(CURVE_STYLES)],
        )
    if control is not None and control.value is not None:
        axes.axhline(100 * control.value, color="gray", lw=0.8, label="clean")
    steps = len(heads) * (CHAR_INCHES * max(map(len, heads)) + NAME_GAP_INCHES)
    name_ticks(axes.xaxis, spots, heads, fontsize=8, rotation=40 if steps > AXIS_INCHES else 0)
    axes.set_xlabel(across, fontsize=9)
    axes.set_ylabel(f"{MEASURE_NAMES[panel.metric]} (%)", fontsize=9)
    axes.set_ylim(0, 100)
    if panel.metric in ACCURACIES:
        mark_chance(axes, [str(panel.where["dataset"])])
    axes.grid(alpha=0.3)
    return _finished(figure, axes, panel)


def _spots(numbers: Sequence[float], names: Sequence[str]) -> Sequence[float]:
    """Where numbers stand on an axis: to scale, or in equal steps where names would overlap."""
    scale = AXIS_INCHES / (numbers[-1] - numbers[0]) if len(set(numbers)) > 1 else 0.0
    neighbors = zip(pairwise(numbers), pairwise(names), strict=True)
    apart = [
        scale * (b - a) >= CHAR_INCHES * (len(m) + len(n)) / 2 + NAME_GAP_INCHES
        for (a, b), (m, n) in neighbors
    ]
    return numbers if all(apart) else range(len(numbers))


def _curve(
    axes: Axes, spots: Sequence[float], line: list[Cell | None], label: str, style: str
) -> None:
    known = [(x, c) for x, c in zip(spots, line, strict=True) if c and c.value is not None]
    if not known:
        axes.plot([], [], style, label=f"{label} ({NO_NUMBER})")
        return
    style = style if len(known) > 1 else style[0]  # no line is known of a single point
    values = [100 * (c.value or 0.0) for _, c in known]
    bars = [100 * (c.std or 0.0) for _, c in known]
    axes.errorbar(
        [x for x, _ in known], values, bars, fmt=style, ms=4, lw=1.2, capsize=2, label=label
    )
    papers = [(x, 100 * printed.value) for x, c in known if (printed := own_number(c))]
    if papers:
        color = axes.lines[-1].get_color() if axes.lines else None
        axes.plot(*zip(*papers, strict=True), "*", ms=8, mfc="none", color=color)


def _dumbbells(panel: Panel) -> Figure:
    rows = list(panel.rows)[::-1]
    figure = blank(7.2, 1.3 + 0.28 * len(rows))
    axes = figure.add_subplot()
    for y, row in enumerate(rows):
        _dumbbell(axes, y, *(panel.cells.get((row, m)) for m in ("final_acc", "peak_acc")))
    name_ticks(axes.yaxis, range(len(rows)), [head(panel, row) for row in rows], fontsize=8)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlim(0, 100)
    mark_chance(axes, [str(panel.where["dataset"])], "x")
    axes.set_xlabel("test accuracy (%)", fontsize=9)
    axes.grid(alpha=0.3, axis="x")
    return _finished(figure, axes, panel)


def _dumbbell(axes: Axes, y: int, final: Cell | None, peak: Cell | None) -> None:
    """The two accuracies of a row and their spread, joined by a line; the paper's as strokes."""
    ends = [c.value * 100 for c in (final, peak) if c and c.value is not None]
    axes.plot(ends, [y] * len(ends), color="gray", lw=1.2, zorder=1)
    for cell, color, name in ((final, "#1f4e79", "final"), (peak, "#d1801f", "peak")):
        if cell and cell.value is not None:
            dot: dict[str, Any] = {"fmt": "o", "ms": 5, "capsize": 2, "zorder": 2}
            spread = 100 * (cell.std or 0)
            axes.errorbar(100 * cell.value, y, xerr=spread, color=color, label=name, **dot)
        if printed := own_number(cell):
            stroke: dict[str, Any] = {"ms": 11, "mew": 1.5, "label": f"{name}, published"}
            axes.plot(100 * printed.value, y, "|", color=color, **stroke)
    if not ends:
        axes.text(1, y, measured_text(final), va="center", fontsize=7)


def _finished(figure: Figure, axes: Axes, panel: Panel) -> Figure:
    """The figure with its title, and a legend at the right that has every name once."""
    handles, labels = axes.get_legend_handles_labels()
    shown = dict(zip(labels, handles, strict=True))
    place: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5)}
    axes.legend(shown.values(), shown.keys(), fontsize=7, frameon=False, **place)
    axes.tick_params(labelsize=8)
    axes.set_title(folded(panel.title, 66), fontsize=8, loc="left")
    figure.set_layout_engine("tight")
    return figure
