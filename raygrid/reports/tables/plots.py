"""Panels as pictures: heatmaps, curves, and peak against final accuracy."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from raygrid.core.lazy import np
from raygrid.reports.tables.cells import Cell
from raygrid.reports.tables.layout import NAMES, Panel
from raygrid.reports.tables.notes import (
    NOTHING,
    attained,
    bounded,
    head,
    marks,
    measured_text,
    number,
)

CELL = (0.92, 0.42)  # inches of one cell of a heatmap
LINES = ("o-", "s--", "^-.", "D:", "v-", "P--", "X-.", "<:")


def picture(panel: Panel) -> Figure:
    """The panel as the picture that suits it; draws nothing on screen, keeps no global state."""
    if panel.numeric is not None:
        return _curves(panel)
    return _dumbbells(panel) if panel.across == "measure" else _heatmap(panel)


def new(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of its own with one pair of axes, drawn by Agg."""
    figure = Figure(figsize=(width, height), dpi=120)
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _heatmap(panel: Panel) -> Figure:
    rows, columns = list(panel.rows), list(panel.columns)
    names, heads = ([head(panel, label) for label in side] for side in (rows, columns))
    left = 0.25 + 0.075 * max(map(len, names))
    wide, tall = CELL[0] * len(columns), CELL[1] * len(rows)
    width = max(left + wide + 1.1, 4.2)
    title = textwrap.fill(panel.title, int(12 * width))
    top = 0.55 + 0.062 * max(map(len, heads)) + 0.15 * title.count("\n")
    height = top + tall + 0.25
    figure, axes = new(width, height)
    axes.set_position((left / width, 0.25 / height, wide / width, tall / height))
    cells = [[panel.cells.get((r, c)) for c in columns] for r in rows]
    values = np.array(
        [
            [np.nan if c is None or c.value is None else 100 * c.value for c in line]
            for line in cells
        ]
    )
    image = axes.imshow(values, cmap="viridis", vmin=0, vmax=100, aspect="auto")
    axes.set_facecolor("#e4e4e4")
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.set_xticks(range(len(columns)), heads, fontsize=8, rotation=40)
    axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    for label in axes.get_xticklabels():
        label.set(ha="left", va="bottom", rotation_mode="anchor")
    for y, line in enumerate(cells):
        for x, cell in enumerate(line):
            _write(axes, x, y, cell, panel.digits)
    strip = figure.add_axes(
        ((left + wide + 0.15) / width, 0.25 / height, 0.14 / width, tall / height)
    )
    figure.colorbar(image, cax=strip)
    strip.tick_params(labelsize=7)
    strip.set_ylabel("accuracy (%)", fontsize=7)
    if any(_printed(cell) for cell in panel.cells.values()):
        foot = "in brackets: published for this protocol"
        figure.text(left / width, 0.06 / height, foot, fontsize=6, color="#555555")
    figure.suptitle(title, x=0.08 / width, y=1 - 0.08 / height, ha="left", va="top", fontsize=9)
    return figure


def _write(axes: Axes, x: int, y: int, cell: Cell | None, digits: int) -> None:
    """Mean and spread of a cell, the published number under it; a word where there is none."""
    if cell is None or cell.value is None:
        axes.text(
            x, y, measured_text(cell).replace(", ", "\n"), ha="center", va="center", fontsize=6
        )
        return
    color = "black" if cell.value > 0.62 else "white"
    text = number(cell.value, cell.metric, digits)
    text = f"≥ {text}" if bounded(cell) else text
    if cell.std is not None:
        text += f" ±{number(cell.std, cell.metric, 1)}"
    under = _under(cell)
    axes.text(x, y - 0.18 * bool(under), text, ha="center", va="center", fontsize=7, color=color)
    if under:
        axes.text(x, y + 0.24, under, ha="center", va="center", fontsize=5.5, color=color)


def _under(cell: Cell) -> str:
    """The small line of a cell: what won, seeds short of the plan, the paper."""
    parts = [attained(cell)] if attained(cell) else []
    if cell.n < cell.of:
        parts.append(f"n={cell.n}/{cell.of}")
    if _printed(cell):
        parts.append(f"[{100 * (cell.published or 0.0):.1f}]{marks(cell)}")
    return " ".join(parts)


def _printed(cell: Cell | None) -> bool:
    """Whether a paper has the number, made with the same protocol: the only ones drawn."""
    return cell is not None and cell.published is not None and cell.own


def _curves(panel: Panel) -> Figure:
    figure, axes = new(6.4, 4.2)
    spots = panel.numeric or ()
    control = panel.cells.get(("clean", panel.columns[0]))
    names = [row for row in panel.rows if row != "clean"]
    for number_, row in enumerate(names):
        line = [panel.cells.get((row, column)) for column in panel.columns]
        if control is not None and line[0] is None:
            line[0] = control
        _curve(axes, spots, line, head(panel, row), LINES[number_ % len(LINES)])
    if control is not None and control.value is not None:
        axes.axhline(100 * control.value, color="gray", lw=0.8, label="clean")
    axes.set_xticks(spots, panel.columns, fontsize=8)
    axes.set_xlabel(panel.across, fontsize=9)
    axes.set_ylabel(f"{NAMES[panel.metric]} (%)", fontsize=9)
    axes.set_ylim(0, 100)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    axes.set_title(textwrap.fill(panel.title, 66), fontsize=8, loc="left")
    figure.set_layout_engine("tight")
    return figure


def _curve(
    axes: Axes, spots: Sequence[float], line: list[Cell | None], label: str, style: str
) -> None:
    known = [(x, c) for x, c in zip(spots, line, strict=True) if c and c.value is not None]
    if not known:
        axes.plot([], [], style, label=f"{label} ({NOTHING})")
        return
    values = [100 * (c.value or 0.0) for _, c in known]
    bars = [100 * (c.std or 0.0) for _, c in known]
    axes.errorbar(
        [x for x, _ in known], values, bars, fmt=style, ms=4, lw=1.2, capsize=2, label=label
    )
    papers = [(x, 100 * (c.published or 0.0)) for x, c in known if _printed(c)]
    if papers:
        color = axes.lines[-1].get_color() if axes.lines else None
        axes.plot(*zip(*papers, strict=True), "*", ms=8, mfc="none", color=color)


def _dumbbells(panel: Panel) -> Figure:
    rows = list(panel.rows)[::-1]
    figure, axes = new(6.4, 1.3 + 0.28 * len(rows))
    for y, row in enumerate(rows):
        final, peak = (panel.cells.get((row, m)) for m in ("final_acc", "peak_acc"))
        ends = [c.value * 100 for c in (final, peak) if c and c.value is not None]
        axes.plot(ends, [y] * len(ends), color="gray", lw=1.2, zorder=1)
        for cell, color, name in ((final, "#1f4e79", "final"), (peak, "#d1801f", "peak")):
            if cell and cell.value is not None:
                axes.errorbar(
                    100 * cell.value,
                    y,
                    xerr=100 * (cell.std or 0),
                    fmt="o",
                    ms=5,
                    color=color,
                    capsize=2,
                    label=name,
                    zorder=2,
                )
            if cell and cell.published is not None and cell.own:
                axes.plot(
                    100 * cell.published,
                    y,
                    "|",
                    ms=11,
                    mew=1.5,
                    color=color,
                    label=f"{name}, published",
                )
        if not ends:
            axes.text(1, y, measured_text(final), va="center", fontsize=7)
    axes.set_yticks(range(len(rows)), [head(panel, row) for row in rows], fontsize=8)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlim(0, 100)
    axes.set_xlabel("test accuracy (%)", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3, axis="x")
    handles, labels = axes.get_legend_handles_labels()
    shown = dict(zip(labels, handles, strict=True))
    axes.legend(
        shown.values(),
        shown.keys(),
        fontsize=7,
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        frameon=False,
    )
    axes.set_title(textwrap.fill(panel.title, 66), fontsize=8, loc="left")
    figure.set_layout_engine("tight")
    return figure
