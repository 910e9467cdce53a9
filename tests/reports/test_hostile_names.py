"""Names that are markup, too long, or of letters that no font has: figures and tables show them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from raygrid.core.spec import TrialSpec
from raygrid.core.text import FILE_NAME_LETTERS, clipped, file_name_part
from raygrid.datasets import DATASETS
from raygrid.reports.drawing import blank, folded, legible, name_ticks
from raygrid.reports.figures.changes import draw_changes
from raygrid.reports.figures.embeddings import draw_tsne_of_changes
from raygrid.reports.figures.gallery import draw_gallery
from raygrid.reports.figures.write import write_figures
from raygrid.reports.page.folders import RunFolder
from raygrid.reports.page.write import write_page
from raygrid.reports.tables.trial_lines import in_order
from raygrid.storage.results import REPORT_FILE, ResultLog
from tests.conftest import toy
from tests.reports.rows import trial, write_tables
from tests.reports.test_pictures import noisy, recorded

assert recorded  # a fixture: t-SNE that places points at once
HOSTILE = {
    "script": "<script>alert(1)</script>",
    "math": r"$\frac{1}$ and $x_2$",
    "bad math": r"a $\nothing{ $",
    "markup": r"50 % of _a_\\b & #1 {c} ^ ~ \input{/etc/passwd}",
    "newline": "two\nlines\r\n\tand a tab",
    "long": "x" * 3000,
    "right to left": "שלום עולם",
    "override": "a\u202etxt.exe",
    "emoji": "\U0001f916 cat",
    "chinese": "中文 名字",
    "control": "bell\x07 \x1b[31mred",
    "underscore": "_hidden",
    "empty": "",
}
NAMES = [pytest.param(name, id=key) for key, name in HOSTILE.items()]


def written(figure: Figure, tmp_path: Path) -> list[str]:
    """Draw a figure, without a warning; the texts on it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as drawn:
        assert max(drawn.size) < 6000
    return [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_shown_as_it_is(name: str, tmp_path: Path) -> None:
    """As a title, in a legend, and at the axes."""
    figure = blank(24, 4)
    axes = figure.add_subplot()
    axes.set_title(folded(name, 40))
    axes.plot([0, 1], label=f"1 {name}")
    name_ticks(axes.yaxis, [0, 1], [name, f"again {name}"])
    axes.legend()
    figure.tight_layout()
    said = written(figure, tmp_path)
    line = " ".join(name.split())
    assert legible(folded(name, 40)) in said
    assert {
        legible(clipped(each, 60)).replace("$", r"\$") for each in (line, f"again {line}".strip())
    } <= {*said}


def test_letters_without_a_glyph_become_their_numbers() -> None:
    assert legible("a$b_c\\d <script>é ≥ שלום") == "a$b_c\\d <script>é ≥ שלום"
    assert legible("中\U0001f916\x07\u202e") == "U+4E2DU+1F916U+0007U+202E"
    assert legible("one\ntwo\tthree") == "one\ntwo three"
    assert legible(legible("中")) == legible("中")


def test_a_long_name_keeps_both_ends() -> None:
    assert clipped("abcdefghij", 10) == "abcdefghij"
    assert clipped("abcdefghijk", 10) == "abcd…ghijk"
    assert folded("a " * 500, 40).count("\n") == 3
    assert folded("short name", 40) == "short name"
    assert max(map(len, folded("x" * 3000, 40).split("\n"))) == 40


def test_names_of_files_are_short_and_tell_names_apart() -> None:
    plain = "photo_digits-quick(epochs=3)-small_cnn-supervised"
    assert file_name_part(plain) == "photo_digits_quick_epochs_3_small_cnn_supervised"
    odd = [*HOSTILE.values(), "a'b", 'a"b', "a$b", "中", "文", "x" * 3001]
    parts = [file_name_part(each) for each in odd]
    assert len(set(parts)) == len(parts)
    assert max(map(len, parts)) <= FILE_NAME_LETTERS + 9
    assert all(part.isascii() and "/" not in part for part in parts)


@pytest.mark.slow
@pytest.mark.parametrize("name", [p for p in NAMES if p.id != "empty"])
def test_classes_stand_in_galleries_and_legends(
    name: str, tmp_path: Path, recorded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one whose name begins with an underscore, or is longer than its column."""
    clean = toy(4, 32)
    draw_gallery(clean.pixels, clean.pixels + 3, [name] * 4, name, tmp_path / "gallery.png")
    with Image.open(tmp_path / "gallery.png") as drawn:
        assert drawn.size[0] < 4000
    names = tuple(f"{name}{label}" for label in range(4))
    monkeypatch.setattr(DATASETS["photo_digits"], "class_names", names)
    poisoned = noisy(40, 8)
    object.__setattr__(poisoned, "spec", "photo_digits/noise/1")
    figure = draw_tsne_of_changes([poisoned])
    written(figure, tmp_path)
    (legend,) = figure.legends
    shown = [text.get_text().strip() for text in legend.get_texts()]
    short = [clipped(" ".join(each.split()), 18) for each in names]
    assert shown == [legible(each) for each in short]


@pytest.mark.slow
def test_rows_of_pictures_have_long_names(tmp_path: Path) -> None:
    clean = toy(8, 32)
    changed = clean.with_pixels((clean.pixels.short() + 3).clamp(0, 255).to(torch.uint8))
    for name in HOSTILE.values():
        figure = draw_changes({name: (clean, changed)}, ("gain",))
        assert legible(folded(name, 24)) in written(figure, tmp_path)


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


RUNS = ("script", "math", "long", "chinese", "emoji", "right to left")


@pytest.mark.parametrize(
    "key", ["bad math", *(pytest.param(k, marks=pytest.mark.slow) for k in RUNS)]
)
def test_a_run_of_hostile_names_has_its_tables_and_figures(key: str, tmp_path: Path) -> None:
    """Of data folders and of files of poisons; two differ in a letter that no file name keeps."""
    name = HOSTILE[key].replace("/", "")[:200]
    rows = []
    for data in (name, f"{name}é"):
        for attack in ("clean", f"file(path={quoted(name)})", "lsp"):
            spec = f"folder(name={quoted(data)})/{attack}/standard/small_cnn/supervised/quick/0"
            rows.append(trial(str(TrialSpec.parse(spec)), 0.5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tables = write_tables(tmp_path, rows)
        figures = write_figures(tmp_path, rows)
        for row in rows:
            ResultLog(tmp_path / "results.jsonl").append(row)
        page = write_page(
            [RunFolder("run", tmp_path, tuple(in_order(rows)), "")], tmp_path / REPORT_FILE
        )
    assert len([path for path in tables if path.suffix == ".tex"]) >= 2
    pictures = [path for path in (*tables, *figures) if path.suffix == ".png"]
    assert len(pictures) == len(set(pictures)) >= 4
    assert "<script>alert" not in page.read_text()
