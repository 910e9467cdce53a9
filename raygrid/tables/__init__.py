"""Tables from results: `frame` makes rows tidy, `table` sets them out, `write_all` writes files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from raygrid.tables.cells import Cell as Cell
from raygrid.tables.kinds import KINDS as KINDS
from raygrid.tables.kinds import PLAIN_DEFENSES
from raygrid.tables.kinds import table as table
from raygrid.tables.layout import Panel
from raygrid.tables.layout import Table as Table
from raygrid.tables.render import csv_text as csv_text
from raygrid.tables.render import json_text as json_text
from raygrid.tables.render import latex as latex
from raygrid.tables.render import markdown as markdown
from raygrid.tables.render import plain_text as plain_text
from raygrid.tables.render import terminal as terminal
from raygrid.tables.tidy import Row
from raygrid.tables.tidy import curves as curves
from raygrid.tables.tidy import frame as frame

WRITERS: dict[str, Callable[[Table], str]] = {
    "md": markdown,
    "csv": csv_text,
    "tex": latex,
    "json": json_text,
}


def write_all(out_dir: Path, rows: Iterable[Row]) -> list[Path]:
    """Write every table that the rows suffice for into `<out_dir>/tables/`, in all formats.

    One file a kind for text; one PNG a panel. Files of an earlier call are replaced. Of the peak
    table, only plain training is drawn: elsewhere the peak says little about the attack.
    """
    folder = out_dir / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    trials = frame(rows)
    written: list[Path] = []
    for kind in KINDS:
        made = table(kind, trials)
        if made.panels:
            written += _write(folder, made)
    return written


def _write(folder: Path, made: Table) -> Iterator[Path]:
    from raygrid.tables.plots import picture

    for suffix, writer in WRITERS.items():
        path = folder / f"{made.kind}.{suffix}"
        path.write_text(writer(made))
        yield path
    for panel in filter(_worth_drawing, made.panels):
        path = folder / f"{made.kind}-{panel.slug}.png"
        picture(panel).savefig(path)
        yield path


def _worth_drawing(panel: Panel) -> bool:
    return panel.across != "measure" or panel.where["defense"] in PLAIN_DEFENSES
