"""The page itself: what it shows as one object, put into its template, in one file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from raygrid.core.lazy import np
from raygrid.reports.page.combinations import CURVE_POINTS, PAGE_MEASURES, Combinations
from raygrid.reports.page.folders import RunFolder, read_folders, summary
from raygrid.reports.page.panels import Drawings, data_address, sections
from raygrid.reports.tables.notes import MARK_MEANINGS
from raygrid.storage.results import REPORT_FILE, Json
from raygrid.tracking.journal import picture_of

MOST_PICTURES = 24  # pictures of a page
POISON_PICTURE_BYTES = 1_200_000  # bytes of all pictures of poisons in a page
COLOR_SHADES = 21
SCRIPT_PARTS = ("elements", "heatmaps", "rows", "combination", "curves", "start")
"""The parts of the script, in their order."""


def report(paths: Sequence[Path], file: Path | None = None) -> Path:
    """Write the page of run folders, a column each; returns where it is.

    file: by default `report.html` in the one folder; of several, in the working folder. Raises
    DataError for a folder without results, OSError where the file cannot be written.
    """
    folders = read_folders(paths)
    if file is None:
        file = paths[0] / REPORT_FILE if len(paths) == 1 else Path(REPORT_FILE)
    return write_page(folders, file)


def write_page(folders: Sequence[RunFolder], file: Path) -> Path:
    """Write the page of folders that were read; an older one is replaced."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page(folders), encoding="utf-8")
    return file


def page(folders: Sequence[RunFolder]) -> str:
    """The page as HTML that needs nothing else: style, script and data are in it."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    content = contents(folders)
    return environment.from_string(_own("report.html.j2")).render(
        title=" and ".join(folder.label for folder in folders),
        summaries=[summary(folder) for folder in folders],
        axes=[axis for axis in content["axes"] if len(axis["values"]) > 1],
        data=script_json(content),
        style=_own("report.css"),
        script="\n".join(_own(f"script/{name}.js") for name in SCRIPT_PARTS),
    )


def _own(name: str) -> str:
    """A file beside this one."""
    return (files("raygrid.reports.page") / name).read_text(encoding="utf-8")


def contents(folders: Sequence[RunFolder]) -> Json:
    """Everything that the page's script shows, as JSON values."""
    combinations, drawings = Combinations(folders), Drawings(MOST_PICTURES)
    shown = sections(folders, combinations, drawings)
    poisons, absent = poison_pictures(folders)
    return {
        "folders": [folder.label for folder in folders],
        "axes": combinations.axes(),
        "measures": [[name, PAGE_MEASURES[name]] for name in combinations.measures],
        "rows": combinations.rows(),
        "trials": combinations.trials,
        "sections": shown,
        "marks": MARK_MEANINGS,
        "undrawn": drawings.left,
        "poisons": poisons,
        "absent": absent,
        "points": CURVE_POINTS,
        "shades": shades(),
    }


def poison_pictures(folders: Sequence[RunFolder]) -> tuple[dict[str, str], list[str]]:
    """Pictures of poisons by key, up to POISON_PICTURE_BYTES; keys of those that do not fit."""
    found: dict[str, str] = {}
    absent, room = [], POISON_PICTURE_BYTES
    for folder in folders:
        keys = {(row.get("artifacts") or {}).get("poison") for row in folder.rows}
        for key in sorted(filter(None, keys - found.keys())):
            picture = picture_of(folder.path, key)
            if not picture.is_file():
                continue
            address = data_address(picture.read_bytes())
            if len(address) > room:
                absent.append(key)
            else:
                found[key] = address
                room -= len(address)
    return found, absent


def script_json(value: Any) -> str:
    """A value as JSON that can stand in a script element: no text of it ends the element."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def shades() -> list[list[str]]:
    """Background and text color of 0 to 100 %, the colors of the heatmaps among the pictures."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    from raygrid.reports.drawing import bright

    colors = colormaps["viridis"](np.linspace(0.0, 1.0, COLOR_SHADES))
    return [[to_hex(color), "#000" if bright(color) else "#fff"] for color in colors]
