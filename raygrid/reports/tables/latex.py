"""Tables as LaTeX that compiles and fits the page, whatever stands in names, errors and notes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from raygrid.reports.tables.blocks import blocks, blocks_within
from raygrid.reports.tables.escape import escape, escape_lines
from raygrid.reports.tables.layout import Panel, Table
from raygrid.reports.tables.notes import head, notes
from raygrid.reports.tables.render import written_lines

PREAMBLE = r"% Needs \usepackage{booktabs,graphicx} in the preamble."
NOTES_BOX = r"  \parbox{\linewidth}{\footnotesize\raggedright"
LINE_POINTS = 345.0  # points between the margins of LaTeX's `article`
SMALL_SCALE = 0.85  # as wide as in text: letters of \footnotesize, for tables of several blocks
LEAST_SCALE = 0.88  # as far as these may be scaled down for a column more: to 7 points
COLUMN_GAP_POINTS = 12.0  # between columns
CHAR_POINTS, NARROW_POINTS = 5.2, 3.0  # of letters at size 10, and of narrow ones
PAGE_LINES = 40  # of text that a page holds beside its captions
HEAD_LINES = 3  # that rules and heads take
NOTE_LETTERS = 100  # of a line of small notes


@dataclass(frozen=True)
class _Piece:
    """What stays together on a page: its LaTeX, and about how many lines it takes."""

    text: str
    lines: int
    note: bool = False


def latex(table: Table) -> str:
    r"""`table` environments with booktabs; needs `\usepackage{booktabs,graphicx}`.

    No wider than the text: columns that do not fit stand in blocks, one below another, in smaller
    letters, and what is too long for a page goes on in another table.
    """
    return "\n".join([PREAMBLE, *(_panel(table, panel) for panel in table.panels)])


def _panel(table: Table, panel: Panel) -> str:
    label = f"tab:{table.kind}-{panel.slug.replace('_', '-')}"
    pieces = [*_tabulars(panel), *_notes(notes(table, panel))]
    return "\n".join(
        _float(
            _title(panel, table.caption if number == 1 else "(continued)"),
            label if number == 1 else f"{label}-{number}",
            page,
        )
        for number, page in enumerate(_pages(pieces), 1)
    )


def _title(panel: Panel, more: str) -> str:
    return escape_lines(f"{panel.title}. {more}")


def _float(caption: str, label: str, pieces: Sequence[_Piece]) -> str:
    parts = [piece.text for piece in pieces if not piece.note]
    if said := [piece.text for piece in pieces if piece.note]:
        parts.append("\n".join([NOTES_BOX, *said, "  }"]))
    body = "\n  \\par\\medskip\n".join(parts)
    return rf"""\begin{{table}}
  \centering
  \caption{{{caption}}}
  \label{{{label}}}
  \par\medskip
{body}
\end{{table}}
"""


def _pages(pieces: Iterable[_Piece]) -> list[list[_Piece]]:
    """Pieces in their order, as many on a page as it holds."""
    pages: list[list[_Piece]] = [[]]
    for piece in pieces:
        if pages[-1] and sum(each.lines for each in pages[-1]) + piece.lines > PAGE_LINES:
            pages.append([])
        pages[-1].append(piece)
    return pages


def _tabulars(panel: Panel) -> Iterator[_Piece]:
    """The panel in blocks of columns that fit the text and of rows that fit a page."""
    heads = [panel.down, *(head(panel, column) for column in panel.columns)]
    shown = [heads, *written_lines(panel, lambda text, bold, underlined: text)]
    widths = [max(map(_width, column)) for column in zip(*shown, strict=True)]
    size, parts = r"\normalsize", [list(range(len(panel.columns)))]
    if sum(widths) + COLUMN_GAP_POINTS * len(widths) > LINE_POINTS:
        label, *others = (SMALL_SCALE * width + COLUMN_GAP_POINTS for width in widths)
        size, parts = r"\footnotesize", blocks_within(others, LINE_POINTS / LEAST_SCALE - label)
    body = [[escape(line[0]), *line[1:]] for line in written_lines(panel, _emphasized)]
    for columns in parts:
        kept = [0, *(number + 1 for number in columns)]
        for rows in blocks(body, PAGE_LINES - HEAD_LINES):
            made = _tabular([escape(heads[n]) for n in kept], [[r[n] for n in kept] for r in rows])
            yield _Piece(f"  {size}\n{made}", HEAD_LINES + len(rows))


def _width(text: str) -> float:
    """About how many points a text takes."""
    return sum(NARROW_POINTS if char in " .,;:[]()|'!ijlft-*" else CHAR_POINTS for char in text)


def _tabular(heads: list[str], rows: list[list[str]]) -> str:
    """A grid of texts, scaled down to the width of the text if it is wider after all."""
    body = "\n".join("    " + " & ".join(line) + r" \\" for line in rows)
    return rf"""  \resizebox{{\ifdim\width>\linewidth\linewidth\else\width\fi}}{{!}}{{%
  \begin{{tabular}}{{l{"r" * (len(heads) - 1)}}}
    \toprule
    {" & ".join(heads)} \\
    \midrule
{body}
    \bottomrule
  \end{{tabular}}}}"""


def _notes(lines: Iterable[str]) -> Iterator[_Piece]:
    """What a reader has to know, in small letters; each note a paragraph."""
    for line in lines:
        yield _Piece(
            f"    {escape_lines(line)}\\par", math.ceil(len(line) / NOTE_LETTERS), note=True
        )


def _emphasized(text: str, bold: bool, underlined: bool) -> str:
    text = escape(text)
    text = rf"\underline{{{text}}}" if underlined else text
    return rf"\textbf{{{text}}}" if bold else text
