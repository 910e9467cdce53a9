"""Tables as text: terminal, Markdown, JSON; see `latex.py` for LaTeX and `tidy.py` for CSV."""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.console import Console, Group
from rich.table import Table as RichTable
from rich.text import Text

from raygrid.reports.tables.blocks import blocks_within
from raygrid.reports.tables.cell_text import measured_text, quoted
from raygrid.reports.tables.layout import Panel, Table
from raygrid.reports.tables.notes import head, notes

LINE_WIDTH = 160  # letters of a line of text that goes to no terminal
COLUMN_PADDING = 3  # letters that a column of a grid takes beside its text: blanks and a line
TextStyle = Callable[[str, bool, bool], str]
"""Text, bold, underlined -> text in the markup of a format."""


@dataclass(frozen=True)
class _Written:
    """A cell as text, and whether it is the best of its row, the strongest of its column."""

    measured: str
    published: str
    best: bool
    strongest: bool


def _written(panel: Panel) -> Iterator[tuple[str, list[_Written]]]:
    """The rows of a panel in order: how each is called, and its cells."""
    strong = {column: panel.strongest(column) for column in panel.columns}
    for row in panel.rows:
        best, line = panel.best(row), []
        for column in panel.columns:
            cell = panel.cells.get((row, column))
            measured = measured_text(cell, panel.digits, panel.intervals)
            marked = column in best, row in strong[column]
            line.append(_Written(measured, quoted(cell, panel), *marked))
        yield head(panel, row), line


def written_lines(panel: Panel, style: TextStyle) -> Iterator[list[str]]:
    """The rows of a panel, label first; each cell measured and published."""
    for label, cells in _written(panel):
        line = [label]
        for cell in cells:
            measured = style(cell.measured, cell.best, cell.strongest)
            published = style(cell.published, False, False)
            line.append(" ".join(filter(None, (measured, published))))
        yield line


def markdown(table: Table) -> str:
    """GitHub tables, one a panel, each with its notes."""
    blocks = [f"# {table.kind}", table.caption]
    for panel in table.panels:
        heads = [panel.down, *(head(panel, c) for c in panel.columns)]
        lines = [heads, ["---"] * len(heads), *written_lines(panel, _markdown)]
        grid = "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)
        said = "\n".join(f"- {_starless(n)}" for n in notes(table, panel, ("bold", "italic")))
        blocks += [f"## {panel.title}", grid, said]
    return "\n\n".join(blocks) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


def _starless(text: str) -> str:
    """Text whose stars mean nothing."""
    return text.replace("*", r"\*")


def _markdown(text: str, bold: bool, underlined: bool) -> str:
    text = _starless(text)
    # Markdown has no underline; many viewers, MLflow's among them, show HTML as text.
    text = f"_{text}_" if underlined else text
    return f"**{text}**" if bold else text


def json_text(table: Table) -> str:
    """A list with one object a cell, one a line, fractions."""
    return "[\n" + ",\n".join(json.dumps(c, ensure_ascii=False) for c in table.cells) + "\n]\n"


def terminal(table: Table, plain: bool = False, width: float = math.inf) -> Group:
    """Something that rich prints: what the table is, a grid a panel, notes below.

    plain: for places that show neither bold nor underlined letters; signs stand for them. width:
    letters of a line; columns beyond it stand in a grid of their own below.
    """
    marked = ("**so**", "_so_") if plain else ("bold", "underlined")
    parts: list[Any] = [Text(table.caption + "\n")] if table.panels else []
    for panel in table.panels:
        parts += [
            Text(panel.title, style="bold"),
            *_grids(panel, plain, width),
            Text("\n".join(notes(table, panel, marked)) + "\n", style="dim"),
        ]
    return Group(*parts or [Text(f"{table.kind}: nothing to compare yet; it takes {table.needs}")])


def _grids(panel: Panel, plain: bool, width: float) -> Iterator[RichTable]:
    """The panel in as many grids as the width asks for; cut in two, numbers mean something else."""
    heads = [Text(panel.down), *(Text(head(panel, column)) for column in panel.columns)]
    lines = list(_rich_lines(panel, plain))
    first, *widths = (
        max(cell_len(text) for cell in column for text in cell.plain.split("\n")) + COLUMN_PADDING
        for column in zip(heads, *lines, strict=True)
    )
    for columns in blocks_within(widths, width - first - 1):
        grid = RichTable(header_style="bold")
        grid.add_column(heads[0], no_wrap=True)
        for number in columns:
            grid.add_column(heads[number + 1], justify="right", overflow="fold")
        for line in lines:
            grid.add_row(line[0], *(line[number + 1] for number in columns))
        yield grid


def _rich_lines(panel: Panel, plain: bool) -> Iterator[list[Text]]:
    for label, cells in _written(panel):
        line = [Text(label)]
        for cell in cells:
            text = _emphasized(cell.measured, cell.best, cell.strongest, plain)
            if cell.published:
                text.append("\n" + cell.published, style="not bold not underline dim")
            line.append(text)
        yield line


def _emphasized(text: str, bold: bool, underlined: bool, plain: bool) -> Text:
    if not plain:
        return Text(text, style=("bold " * bold + "underline" * underlined).strip())
    text = f"_{text}_" if underlined else text
    return Text(f"**{text}**" if bold else text)


def plain_text(table: Table, width: int = LINE_WIDTH) -> str:
    """What the terminal shows, without colors."""
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(terminal(table, True, width))
    return out.getvalue()


def show(table: Table) -> None:
    """Print as wide as the terminal; into a pipe or file, whose width nobody knows, LINE_WIDTH."""
    if sys.stdout.isatty():
        console = Console()
        console.print(terminal(table, width=console.width))
    else:
        sys.stdout.write(plain_text(table))
