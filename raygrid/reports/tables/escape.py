"""Text for LaTeX, whatever letters stand in names and errors."""

from __future__ import annotations

import re
import unicodedata

# A table of our own: those of pandas (whose function is private) and tabulate write out the ten
# signs of LaTeX's own syntax alone. They leave | and ", which LaTeX's usual font shows as other
# signs, "--", which becomes a dash, and letters that fonts lack, which stop the engine.
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
_JOINED = re.compile(r"(?<=[-`'?!,])(?=[-`',])")
"""Between signs that fonts would draw as one other sign, as a dash for two hyphens."""
UNBROKEN_LETTERS = 16  # letters of a word that stay together where lines may break


def escape(text: str) -> str:
    """Text with every character that LaTeX would read as markup written out.

    Letters that the usual fonts lack, which would stop LaTeX, become their number: U+4E2D.
    """
    pieces = _JOINED.split(unicodedata.normalize("NFC", text))
    return "{}".join("".join(map(_escaped, piece)) for piece in pieces)


def escape_lines(text: str) -> str:
    """The same for text of several lines, which may also break within specs, paths and numbers."""
    return " ".join(r"\allowbreak{}".join(map(escape, _pieces(word))) for word in text.split())


def _pieces(word: str) -> list[str]:
    """A long word after its signs of punctuation, and where it has none for long."""
    if len(word) <= UNBROKEN_LETTERS:
        return [word]
    parts = re.findall(r"[^/_,(+=:.;|-]*[/_,(+=:.;|-]+|[^/_,(+=:.;|-]+$", word)
    return [
        part[n : n + UNBROKEN_LETTERS]
        for part in parts
        for n in range(0, len(part), UNBROKEN_LETTERS)
    ]


def _escaped(char: str) -> str:
    if char in _LATEX:
        return _LATEX[char]
    plain, *accents = list(unicodedata.normalize("NFD", char))
    known = char < "\u0180" and " " <= plain <= "~" and all(a in _ACCENTS for a in accents)
    if known or char in _LETTERS:
        return char
    return " " if char.isspace() else f"U+{ord(char):04X}"
