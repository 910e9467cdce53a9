"""Tables as text: terminal, Markdown, LaTeX, CSV, JSON."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console, Group
from rich.table import Table as RichTable
from rich.text import Text

from raygrid.reports.tables.layout import Panel, Table
from raygrid.reports.tables.notes import head, measured_text, notes, quoted

WIDE = 160  # columns of text that goes to no terminal
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "≥": r"$\geq$",
    "−": r"$-$",
    "–": "--",
    "†": r"\textdagger{}",
    "‡": r"\textdaggerdbl{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}
Style = Callable[[str, bool, bool], str]
"""Text, bold, underlined -> text in the markup of a format."""


def _lines(panel: Panel, style: Style) -> Iterator[list[str]]:
    """The rows of a panel, label first; each cell measured and published."""
    strong = {column: panel.strongest(column) for column in panel.columns}
    for row in panel.rows:
        best = panel.best(row)
        line = [head(panel, row)]
        for column in panel.columns:
            cell = panel.cells.get((row, column))
            text = style(
                measured_text(cell, panel.digits, panel.intervals),
                column in best,
                row in strong[column],
            )
            line.append(" ".join(filter(None, (text, style(quoted(cell, panel), False, False)))))
        yield line


def markdown(table: Table) -> str:
    """GitHub tables, one a panel, each with its notes."""
    blocks = [f"# {table.kind}", table.caption]
    for panel in table.panels:
        heads = [panel.down, *(head(panel, c) for c in panel.columns)]
        lines = [heads, ["---"] * len(heads), *_lines(panel, _markdown)]
        grid = "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)
        blocks += [f"## {panel.title}", grid, "\n".join(f"- {n}" for n in notes(table, panel))]
    return "\n\n".join(blocks) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


def _markdown(text: str, bold: bool, underlined: bool) -> str:
    text = text.replace("*", r"\*")
    """Markdown has no underline; many viewers, MLflow's among them, show HTML as text."""
    text = f"_{text}_" if underlined else text
    return f"**{text}**" if bold else text


def latex(table: Table) -> str:
    """`table` environments with booktabs; needs `\\usepackage{booktabs}` and nothing else."""
    return "\n".join(_latex_panel(table, panel) for panel in table.panels)


def _latex_panel(table: Table, panel: Panel) -> str:
    heads = [escape(text) for text in (panel.down, *(head(panel, c) for c in panel.columns))]
    body = [[escape(line[0]), *line[1:]] for line in _lines(panel, _latex)]
    caption = escape(" ".join([f"{panel.title}.", table.caption, *notes(table, panel)]))
    rows = "\n".join("    " + " & ".join(line) + r" \\" for line in body)
    return rf"""\begin{{table}}
  \centering
  \caption{{{caption}}}
  \label{{tab:{table.kind}-{panel.slug.replace("_", "-")}}}
  \begin{{tabular}}{{l{"r" * len(panel.columns)}}}
    \toprule
    {" & ".join(heads)} \\
    \midrule
{rows}
    \bottomrule
  \end{{tabular}}
\end{{table}}
"""


def _latex(text: str, bold: bool, underlined: bool) -> str:
    text = escape(text)
    text = rf"\underline{{{text}}}" if underlined else text
    return rf"\textbf{{{text}}}" if bold else text


def escape(text: str) -> str:
    """Text with every character that LaTeX would read as markup written out."""
    return "".join(_LATEX.get(char, char) for char in text)


def csv_text(table: Table) -> str:
    """One line a cell, fractions, every field; lists and objects as JSON."""
    cells = table.cells
    fields = list(dict.fromkeys(name for cell in cells for name in cell))
    out = io.StringIO()
    writer = csv.DictWriter(out, fields, lineterminator="\n")
    writer.writeheader()
    for cell in cells:
        writer.writerow({name: _plain(value) for name, value in cell.items()})
    return out.getvalue()


def _plain(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


def json_text(table: Table) -> str:
    """A list with one object a cell, one a line, fractions."""
    return "[\n" + ",\n".join(json.dumps(c, ensure_ascii=False) for c in table.cells) + "\n]\n"


def terminal(table: Table) -> Group:
    """Something that rich prints: what the table is, a grid a panel, notes below."""
    parts: list[Any] = [Text(table.caption + "\n")] if table.panels else []
    for panel in table.panels:
        grid = RichTable(header_style="bold")
        grid.add_column(panel.down, no_wrap=True)
        for column in panel.columns:
            grid.add_column(head(panel, column), justify="right", overflow="fold")
        for line in _rich_lines(panel):
            grid.add_row(*line)
        parts += [
            Text(panel.title, style="bold"),
            grid,
            Text("\n".join(notes(table, panel)) + "\n", style="dim"),
        ]
    return Group(*parts or [Text(f"{table.kind}: nothing to compare yet")])


def _rich_lines(panel: Panel) -> Iterator[list[Text]]:
    strong = {column: panel.strongest(column) for column in panel.columns}
    for row in panel.rows:
        best = panel.best(row)
        line = [Text(head(panel, row))]
        for column in panel.columns:
            cell = panel.cells.get((row, column))
            style = "bold " * (column in best) + "underline" * (row in strong[column])
            text = Text(measured_text(cell, panel.digits, panel.intervals), style=style.strip())
            if published := quoted(cell, panel):
                text.append("\n" + published, style="not bold not underline dim")
            line.append(text)
        yield line


def plain_text(table: Table, width: int = WIDE) -> str:
    """What the terminal shows, without colors."""
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(terminal(table))
    return out.getvalue()


def show(table: Table) -> None:
    """Print as wide as the terminal; into a pipe or file, whose width nobody knows, WIDE."""
    Console(width=None if sys.stdout.isatty() else WIDE).print(terminal(table))
