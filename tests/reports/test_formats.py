"""One table as Markdown, LaTeX, JSON, CSV and in a terminal."""

from __future__ import annotations

import csv
import io
import json

import pytest
from rich.console import Console

from raygrid.literature.names import SIX_LEARNERS
from raygrid.reports.tables.escape import escape
from raygrid.reports.tables.kinds import table
from raygrid.reports.tables.latex import latex
from raygrid.reports.tables.render import json_text, markdown, plain_text, show, terminal
from raygrid.reports.tables.tidy import OPTIONAL_COLUMNS, TABLE_COLUMNS, csv_text
from raygrid.reports.tables.trial_lines import trial_lines
from tests.reports.rows import CIFAR, derived, grid, trial


def test_markdown_is_as_expected() -> None:
    text = markdown(table("defense", trial_lines(grid())))
    expected = """\
| attack | standard | grayscale |
| --- | --- | --- |
| clean | 90.0 ± 0.0 | 82.0 ± 2.8 |
| lsp | _13.0 ± 1.4_ | **_55.0 ± 7.1_** |
| lsp(patch=4) | 30.0 ± 0.0 | **70.0 ± 0.0** |
"""
    assert expected in text
    assert "## photo_digits, protocol quick, small_cnn, supervised, 100 % poisoned" in text


def test_latex_is_escaped_and_has_booktabs() -> None:
    assert escape(r"a_b & 50% {x} #1 $ ~ ^ \ ± – †") == (
        r"a\_b \& 50\% \{x\} \#1 \$ \textasciitilde{} \textasciicircum{} \textbackslash{} "
        r"$\pm$ -- \textdagger{}"
    )
    text = latex(table("defense", trial_lines(grid())))
    assert r"\toprule" in text
    assert r"photo\_digits" in text
    assert r"lsp(patch=4) & 30.0 $\pm$ 0.0 & \textbf{70.0 $\pm$ 0.0} \\" in text
    assert "_" not in text.replace(r"\_", "")
    assert text.count("{") == text.count("}")


def test_json_and_csv_have_one_object_a_cell_in_fractions() -> None:
    made = table(
        "defense", trial_lines([*grid(), trial(CIFAR.format("em_apb", "apbench", 0), 0.21)])
    )
    assert "NaN" not in json_text(made)
    cells = json.loads(json_text(made))
    assert len(cells) == 7
    em = next(c for c in cells if c["attack"] == "em_apb")
    wanted = {"final_acc": 0.21, "n": 1, "of": 1, "std": None, "published": 0.2078, "own": True}
    assert {name: em[name] for name in wanted} == wanted
    assert {
        "dataset",
        "attack",
        "poison_ratio",
        "defense",
        "architecture",
        "learner",
        "protocol",
        "peak_acc",
    } <= set(em)
    lines = list(csv.DictReader(io.StringIO(csv_text(made))))
    assert [line["final_acc"] for line in lines] == [str(c["final_acc"]) for c in cells]


def test_csv_is_tidy() -> None:
    """One cell a row, plain columns: nothing in a field has to be parsed once more."""
    rows = [*grid(), *derived("iss"), trial(CIFAR.format("em_remrepo", "dvae", 0), 0.5)]
    rows.append(trial(CIFAR.format("lsp", "dvae", 0), status="failed", error="E: [1]\nTraceback"))
    made = table("defense", trial_lines(rows))
    lines = list(csv.DictReader(io.StringIO(csv_text(made))))
    assert len(lines) == len(made.cells)
    assert not [text for line in lines for text in line.values() if text[:1] in ("{", "[")]
    names = list(lines[0])
    assert names == [*TABLE_COLUMNS, *(name for name in OPTIONAL_COLUMNS if name in names)]
    assert len(names) <= 30
    by = {(line["attack"], line["defense"], line["dataset"]): line for line in lines}
    lsp = by["lsp", "standard", "photo_digits"]
    assert (lsp["seeds"], lsp["n"], lsp["of"], lsp["why"]) == ("0 1", "2", "3", "")
    assert float(lsp["value"]) == pytest.approx(0.13)
    assert by["em_remrepo", "standard", "cifar10"]["contradicting"].startswith("apbench T3")
    lost = by["lsp", "standard", "cifar10"]
    assert (lost["why"], lost["failed"], lost["seeds"], lost["value"]) == ("E: [1]", "1", "", "")
    plain = next(csv.reader(io.StringIO(csv_text(table("defense", trial_lines(grid()))))))
    assert not set(plain) & {"winners", "why", "contradicting", "published_std"}, "none has any"


def test_a_table_in_a_pipe_loses_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    """80 columns, which rich takes where it cannot know, would cut them off."""
    rows = [
        trial(f"cifar10/tp/standard/resnet18/{learner}/tp/0", 0.1234 + i / 100)
        for i, learner in enumerate(SIX_LEARNERS)
    ]
    show(table("worst-learner", trial_lines(rows)))
    text = capsys.readouterr().out
    for i in range(len(SIX_LEARNERS)):
        assert f"{12.34 + i:.1f}" in text
    assert "…" not in text


def test_notes_name_the_marks_as_their_format_shows_them() -> None:
    made = table("defense", trial_lines(grid()))
    where = "strongest attack of a defense"
    assert f"Bold: best defense of an attack; italic: {where}" in markdown(made)
    assert f"Bold: best defense of an attack; underlined: {where}" in latex(made)
    plain = plain_text(made)
    assert f"**so**: best defense of an attack; _so_: {where}" in plain
    assert "**70.0 ± 0.0**" in plain
    assert "_13.0 ± 1.4_" in plain
    out = io.StringIO()
    Console(file=out, width=160, force_terminal=True, color_system="standard").print(terminal(made))
    assert f"Bold: best defense of an attack; underlined: {where}" in out.getvalue()
    assert "\x1b[1m70.0 ± 0.0\x1b[0m" in out.getvalue()
    assert "\x1b[4m13.0 ± 1.4\x1b[0m" in out.getvalue()
    for text in (plain, latex(made), out.getvalue(), markdown(made)):
        assert "in Markdown" not in text
