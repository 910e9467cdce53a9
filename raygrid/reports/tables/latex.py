"""Tables as LaTeX that compiles, whatever letters stand in names and errors."""

from __future__ import annotations

import unicodedata

from raygrid.reports.tables.layout import Panel, Table
from raygrid.reports.tables.notes import head, notes
from raygrid.reports.tables.render import written_lines

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
    "|": r"\textbar{}",
    '"': "''",
    "“": "``",
    "”": "''",
    "‘": "`",
    "’": "'",
    "…": r"\ldots{}",
    "°": r"$^\circ$",
    "×": r"$\times$",
    "÷": r"$\div$",
    "·": r"$\cdot$",
    "µ": r"$\mu$",
    "→": r"$\to$",
    "≤": r"$\leq$",
    "≈": r"$\approx$",
    "≠": r"$\neq$",
    "∞": r"$\infty$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "γ": r"$\gamma$",
    "δ": r"$\delta$",
    "ε": r"$\epsilon$",
    "λ": r"$\lambda$",
    "μ": r"$\mu$",
    "ρ": r"$\rho$",
    "σ": r"$\sigma$",
    "τ": r"$\tau$",
    "—": "---",
    "±": r"$\pm$",
    "≥": r"$\geq$",
    "−": r"$-$",
    "–": "--",
    "†": r"\textdagger{}",
    "‡": r"\textdaggerdbl{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}
_ACCENTS = "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327"
_LETTERS = "ßæœøłÆŒØŁ§©£¶¡¿"
"""What the fonts that LaTeX takes by itself have beyond ASCII."""


def latex(table: Table) -> str:
    """`table` environments with booktabs; needs `\\usepackage{booktabs}` and nothing else."""
    return "\n".join(_latex_panel(table, panel) for panel in table.panels)


def _latex_panel(table: Table, panel: Panel) -> str:
    heads = [escape(text) for text in (panel.down, *(head(panel, c) for c in panel.columns))]
    body = [[escape(line[0]), *line[1:]] for line in written_lines(panel, _emphasized)]
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


def _emphasized(text: str, bold: bool, underlined: bool) -> str:
    text = escape(text)
    text = rf"\underline{{{text}}}" if underlined else text
    return rf"\textbf{{{text}}}" if bold else text


def escape(text: str) -> str:
    """Text with every character that LaTeX would read as markup written out.

    Letters that the usual fonts lack, which would stop LaTeX, become their number: U+4E2D.
    """
    return "".join(map(_escaped, unicodedata.normalize("NFC", text)))


def _escaped(char: str) -> str:
    if char in _LATEX:
        return _LATEX[char]
    plain, *accents = list(unicodedata.normalize("NFD", char))
    known = char < "\u0180" and " " <= plain <= "~" and all(a in _ACCENTS for a in accents)
    if known or char in _LETTERS:
        return char
    return " " if char.isspace() else f"U+{ord(char):04X}"
