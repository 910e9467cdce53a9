"""Tables in files: Markdown, CSV, LaTeX and JSON of every kind, and a picture of each panel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from raygrid.reports.tables.kinds import TABLE_KINDS
from raygrid.reports.tables.latex import latex
from raygrid.reports.tables.layout import Panel, Table
from raygrid.reports.tables.render import json_text, markdown
from raygrid.reports.tables.tidy import csv_text
from raygrid.trials.contest import PLAIN_DEFENSES

WRITERS: dict[str, Callable[[Table], str]] = {
    "md": markdown,
    "csv": csv_text,
    "tex": latex,
    "json": json_text,
}


def write_made(out_dir: Path, made: list[Table], pictures: int = 24) -> list[Path]:
    """Write tables into `<out_dir>/tables/`, in all formats.

    One file a kind for text; one PNG a panel, at most `pictures` of them, the first panels of
    every kind first (the Markdown says so where some are and others are not). Files of an earlier
    call are replaced.
    """
    folder = out_dir / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    drawn = _choose(made, pictures)
    for kind in TABLE_KINDS:
        for old in (*folder.glob(f"{kind}.*"), *folder.glob(f"{kind}-*.png")):
            old.unlink()
    return [path for each in made for path in _write(folder, each, drawn[each.kind])]


def _choose(made: list[Table], pictures: int) -> dict[str, list[Panel]]:
    """The panels to draw: of all that are worth it, the first of every kind, then the second."""
    ranked = [
        (rank, each.kind, panel)
        for each in made
        for rank, panel in enumerate(filter(worth_drawing, each.panels))
    ]
    chosen: dict[str, list[Panel]] = {each.kind: [] for each in made}
    for _, kind, panel in sorted(ranked, key=lambda item: item[0])[:pictures]:
        chosen[kind].append(panel)
    return chosen


def worth_drawing(panel: Panel) -> bool:
    """The peak says little about an attack where a defense changes the training."""
    return not panel.against_peak or panel.where["defense"] in PLAIN_DEFENSES


def _write(folder: Path, made: Table, drawn: list[Panel]) -> Iterator[Path]:
    from raygrid.reports.tables.plots import picture

    worth = sum(map(worth_drawing, made.panels))
    fewer = f"\nPictures: the first {len(drawn)} of {worth} panels are drawn.\n"
    yield from write_table(folder, made.kind, made, fewer if 0 < len(drawn) < worth else "")
    for panel in drawn:
        path = folder / f"{made.kind}-{panel.slug}.png"
        picture(panel).savefig(path)
        yield path


def write_table(folder: Path, stem: str, made: Table, note: str = "") -> list[Path]:
    """Write a table as text in all formats; note: ends the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for suffix, writer in WRITERS.items():
        paths.append(folder / f"{stem}.{suffix}")
        paths[-1].write_text(writer(made) + (note if suffix == "md" else ""), encoding="utf-8")
    return paths
