"""Rows of an answer as text: aligned columns, on a narrow terminal in blocks or line by line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from raygrid.core.labels import short, telling
from raygrid.core.spec import split_outside
from raygrid.core.text import percent, wrapped
from raygrid.reports.tables.blocks import blocks_within

if TYPE_CHECKING:
    from raygrid.reports.analysis.records import EvaluationRow

MANY_COLUMNS = 16  # columns that no terminal is wide enough for
NUMBERS_PART = 4  # the part of a width that names must leave to numbers, one in so many
IDENTIFYING_NUMBERS = ("poison_ratio", "class", "eta")
"""Columns of numbers that tell rows apart, as names do."""
NO_BREAK_SPACE = "\N{NO-BREAK SPACE}"  # keeps a number in the line of its name
ColumnTexts = dict[str, list[str]]
"""By its name what stands in a column."""


def narrow_text(rows: Sequence[EvaluationRow], width: int) -> str:
    """Rows within so many letters: what is the same in all of them is said once above.

    The names that tell rows apart stand in their short form (`short`) before each block of other
    columns; a text too long for a column is a number in it and stands below. Where the names leave
    no room, each row is a record of its own.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    said = {name: [_say(name, row.get(name)) for row in rows] for name in columns}
    same = [name for name in columns if len(rows) > 1 and len(set(said[name])) == 1]
    begin = _names(rows, columns)
    names = [name for name in begin if name not in same]
    others = [name for name in columns if name not in (*begin, *same)]
    once = [f"{name} {said[name][0]}" for name in same]
    once += [f"{name} {text}" for name in names if (text := _shared(said[name]))]
    lines = [wrapped("; ".join(once))] if once else []
    texts = said | {name: _shortened(said[name]) for name in names}
    room = width - sum(_wide(texts, name) for name in names)
    if room < max([width / NUMBERS_PART, *(len(name) + 2 for name in others)]):
        lines += _records(texts, names, others)
    else:
        notes: list[str] = []
        for name in others:
            if _wide(texts, name) > room:
                texts[name] = _noted(texts[name], notes)
        lines += [*_blocks(texts, names, others, room), *notes]
    return "\n".join(lines).rstrip()


def _names(rows: Sequence[EvaluationRow], columns: Sequence[str]) -> Sequence[str]:
    """The columns that rows begin with, up to the first of what was measured."""
    for place, name in enumerate(columns):
        if name not in IDENTIFYING_NUMBERS and not all(
            isinstance(row.get(name), str) for row in rows
        ):
            return columns[:place]
    return columns


def _shortened(values: Sequence[str]) -> list[str]:
    """What tells values apart; the only one stays whole."""
    if len(values) < 2:
        return list(values)
    told = telling(values)
    told = told if any(told[value] != value for value in values) else short(values)
    return [told[value] for value in values]


def _shared(values: Sequence[str]) -> str:
    """What specs have in common, which their short names leave out: `cifar10/…/standard`."""
    axes = list(zip(*(split_outside(value, "/") for value in values), strict=False))
    if _shortened(values) == list(values) or len(axes) < 2:
        return ""
    return "/".join(axis[0] if len(set(axis)) == 1 else "…" for axis in axes)


def _wide(texts: ColumnTexts, name: str) -> int:
    """The letters of a column with its head and the gap to the next."""
    return max(map(len, [name, *texts[name]])) + 2


def _noted(values: Sequence[str], notes: list[str]) -> list[str]:
    """Numbers in the place of long texts, each of which is noted once."""
    distinct = [text for text in dict.fromkeys(values) if text != "-"]
    known = {text: f"({len(notes) + n})" for n, text in enumerate(distinct, 1)}
    notes += [wrapped(f"{number} {text}", 4) for text, number in known.items()]
    return [known.get(text, text) for text in values]


def _blocks(
    texts: ColumnTexts, names: Sequence[str], others: Sequence[str], room: int
) -> Iterator[str]:
    """Tables of as many of the other columns as there is room for, each behind the names."""
    for block in blocks_within([_wide(texts, name) for name in others], room) or [[]]:
        shown = [*names, *(others[place] for place in block)]
        widths = [_wide(texts, name) for name in shown]
        for line in (shown, *zip(*(texts[name] for name in shown), strict=True)):
            cells = (cell.ljust(wide) for cell, wide in zip(line, widths, strict=True))
            yield "".join(cells).rstrip()
        yield ""


def _records(texts: ColumnTexts, names: Sequence[str], others: Sequence[str]) -> Iterator[str]:
    """A row at a time: its names, then further to the right what is known of it."""
    if names:
        yield wrapped("  ".join(names), 4)
    for line in zip(*(texts[name] for name in (*names, *others)), strict=True):
        if names:
            yield wrapped("  ".join(line[: len(names)]), 4)
        found = zip(others, line[len(names) :], strict=True)
        known = (f"{name}{NO_BREAK_SPACE}{text}" for name, text in found if text not in ("-", ""))
        yield wrapped("  " + "; ".join(known), 4).replace(NO_BREAK_SPACE, " ")


def rows_text(rows: Sequence[EvaluationRow]) -> str:
    """Rows as aligned columns, as lines if there are too many of them; shares in percent."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [columns] + [[_say(name, row.get(name)) for name in columns] for row in rows]
    if len(columns) > MANY_COLUMNS:
        cells = list(map(list, zip(*cells, strict=True)))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in cells)
    return "\n".join(line.rstrip() for line in lines)


def _say(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name.endswith(("acc", "rate", "identical")):
        return percent(value, 2)
    if name in ("p", "p_holm"):
        return f"{value:.2g}"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
