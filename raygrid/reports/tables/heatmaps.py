"""A panel as a heatmap: every number in its cell, chance on the scale, legible on a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from raygrid.core.lazy import np
from raygrid.core.text import decimal
from raygrid.literature.printed import Printed
from raygrid.reports.drawing import GUESSING_COLOR, NAME_LETTERS, blank, bright, folded, name_ticks
from raygrid.reports.tables.blocks import blocks
from raygrid.reports.tables.cell_text import attained, bounded, marks, measured_text, number
from raygrid.reports.tables.cells import Cell
from raygrid.reports.tables.layout import Panel
from raygrid.reports.tables.notes import head

CELL_INCHES, SMALL_LINE_INCHES = 0.3, 0.11  # the height of a cell, and of each small line
LEAST_CELL_INCHES = 0.66  # the least width of a cell
SMALL_LINE_LETTERS = 16  # of a small line; what is longer stands in several
ROW_INCHES = 7.0  # inches for the cells of a row; further columns stand in a block below
EDGE_INCHES, FOOT_INCHES = 0.1, 0.3  # at the left, and below
SCALE_INCHES = 0.85  # for the scale of colors
SCALE_LETTER_INCHES = 0.055  # inches of a letter of the scale's label
COLOR_MAP = "viridis"
SCALE_LABELS = {
    "target_success": "success on the target (%)",
    "detection_acc": "share of images (%)",
}
"""What a scale is called that is none of test accuracies."""


@dataclass(frozen=True)
class Sizes:
    """Inches. left: of the names; cell, tall: of a cell; top: of the title; heads: of a block."""

    left: float
    cell: float
    tall: float
    top: float
    heads: float


def heatmap(panel: Panel) -> Figure:
    """The panel as colors and numbers; many columns stand in several blocks, one below another."""
    sizes = _sizes(panel)
    parts = blocks(panel.columns, max(2, int(ROW_INCHES / sizes.cell)))
    tall, most = sizes.tall * len(panel.rows), max(map(len, parts))
    label = _label(panel, tall)
    width = max(
        sizes.left + sizes.cell * most + SCALE_INCHES + SMALL_LINE_INCHES * label.count("\n"), 4.2
    )
    title = folded(panel.title, int(13 * width))
    top = sizes.top + 0.16 * title.count("\n")
    height = top + len(parts) * (sizes.heads + tall) + FOOT_INCHES
    figure = blank(width, height)
    for place, columns in enumerate(parts):
        low = height - top - (place + 1) * (sizes.heads + tall)
        wide = sizes.cell * len(columns)
        axes = figure.add_axes((sizes.left / width, low / height, wide / width, tall / height))
        image = _block(axes, panel, columns)
        if place == 0:
            right = sizes.left + wide + 0.12
            strip = (right / width, low / height, 0.14 / width, tall / height)
            _scale(figure.add_axes(strip), image, panel.chance, label)
    figure.text(EDGE_INCHES / width, 0.08 / height, _foot(panel), fontsize=6.5, color="#444444")
    figure.suptitle(
        title, x=EDGE_INCHES / width, y=1 - 0.08 / height, ha="left", va="top", fontsize=9
    )
    return figure


def _sizes(panel: Panel) -> Sizes:
    """As wide as the longest texts need."""
    names, heads = ([head(panel, label) for label in side] for side in (panel.rows, panel.columns))
    texts = [_texts(panel, cell) for cell in panel.cells.values()]
    lines = [line for _, under in texts for line in under.splitlines()]
    longest = max(
        0.062 * max(len(main) for main, _ in texts), 0.052 * max(map(len, lines), default=0)
    )
    return Sizes(
        left=0.25 + 0.075 * min(NAME_LETTERS, max(map(len, names))),
        cell=max(LEAST_CELL_INCHES, longest + 0.1),
        tall=CELL_INCHES
        + SMALL_LINE_INCHES * max(under.count("\n") + bool(under) for _, under in texts),
        top=0.3,
        heads=0.25 + 0.05 * min(NAME_LETTERS, max(map(len, heads))),
    )


def _block(axes: Axes, panel: Panel, columns: Sequence[str]) -> AxesImage:
    """Some columns of a panel."""
    cells = [[panel.cells.get((r, c)) for c in columns] for r in panel.rows]
    values = np.array(
        [
            [np.nan if c is None or c.value is None else 100 * c.value for c in line]
            for line in cells
        ]
    )
    image = axes.imshow(values, cmap=COLOR_MAP, vmin=0, vmax=100, aspect="auto")
    axes.set_facecolor("#e4e4e4")
    rows, heads = ([head(panel, name) for name in side] for side in (panel.rows, columns))
    name_ticks(axes.yaxis, range(len(rows)), rows, fontsize=8)
    name_ticks(axes.xaxis, range(len(heads)), heads, fontsize=8, rotation=40)
    axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    for label in axes.get_xticklabels():
        label.set(ha="left", va="bottom", rotation_mode="anchor")
    for y, line in enumerate(cells):
        for x, cell in enumerate(line):
            _write(axes, (x, y), panel, cell)
    return image


def _label(panel: Panel, tall: float) -> str:
    """What the scale is called, in lines that a scale of so many inches has room for."""
    name = SCALE_LABELS.get(panel.metric, "accuracy (%)")
    return folded(name, max(8, int(tall / SCALE_LETTER_INCHES)))


def _scale(strip: Axes, image: AxesImage, chance: float | None, label: str) -> None:
    """The scale of colors, guessing marked on it."""
    strip.figure.colorbar(image, cax=strip)
    strip.tick_params(labelsize=7)
    strip.set_ylabel(label, fontsize=7)
    if chance is not None:
        strip.axhline(100 * chance, color=GUESSING_COLOR, lw=2)


def _foot(panel: Panel) -> str:
    said = []
    if panel.chance is not None:
        said.append(f"red on the scale: chance, {100 * panel.chance:g} %")
    if any(map(own_number, panel.cells.values())):
        said.append("in brackets: published for this protocol")
    return "; ".join(said)


def _write(axes: Axes, spot: tuple[int, int], panel: Panel, cell: Cell | None) -> None:
    """Mean and spread of a cell, the published number under it; a word where there is none."""
    x, y = spot
    style: dict[str, Any] = {"ha": "center", "va": "center"}
    text, under = _texts(panel, cell)
    if cell is None or cell.value is None:
        axes.text(x, y, text.replace(", ", "\n"), fontsize=6.5, **style)
        return
    color = "black" if bright(colormaps[COLOR_MAP](float(cell.value))) else "white"
    if under:
        axes.text(x, y - 0.02, under, fontsize=6.5, color=color, **{**style, "va": "top"})
        style["va"] = "bottom"
    axes.text(x, y - 0.06 * bool(under), text, fontsize=7.5, color=color, **style)


def _texts(panel: Panel, cell: Cell | None) -> tuple[str, str]:
    """What stands in a cell: the number, and the small line below it."""
    if cell is None or cell.value is None:
        return measured_text(cell), ""
    text = number(cell.value, cell.metric, panel.digits)
    text = f"≥ {text}" if bounded(cell) else text
    if cell.std is not None:
        text += f" ±{number(cell.std, cell.metric, 1)}"
    return text, _under(cell)


def _under(cell: Cell) -> str:
    """The small lines of a cell: what won, seeds short of the plan, the paper."""
    won = attained(cell)
    parts = [won if len(won) <= SMALL_LINE_LETTERS else won.replace(", ", "\n")] if won else []
    if cell.n < cell.of:
        parts.append(f"n={cell.n}/{cell.of}")
    if printed := own_number(cell):
        parts.append(f"[{decimal(printed.value, 1, 2)}]{marks(printed)}")
    said = " ".join(parts)
    return said if len(said) <= SMALL_LINE_LETTERS else "\n".join(parts)


def own_number(cell: Cell | None) -> Printed | None:
    """The paper's number of a cell if it was made the same way: the only ones drawn."""
    return cell.printed if cell and cell.printed and cell.printed.own else None
