"""LaTeX forms of tables: a LaTeX engine takes them, whatever stands in names, errors and notes."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from raygrid.literature.names import SIX_LEARNERS
from raygrid.reports.tables.escape import escape, escape_lines
from raygrid.reports.tables.kinds import TABLE_KINDS, table
from raygrid.reports.tables.latex import PREAMBLE, latex
from raygrid.reports.tables.layout import Table
from raygrid.reports.tables.trial_lines import trial_lines
from tests.reports import test_success
from tests.reports.rows import CIFAR, TOY, as_if_run, trial

pytestmark = pytest.mark.slow
ENGINES = {
    "pdflatex": ("-interaction=nonstopmode", "-halt-on-error"),
    "tectonic": ("--outfmt", "pdf"),
}
DOCUMENT = r"""\documentclass{article}
\usepackage{booktabs,graphicx}
\let\scaled\resizebox
\renewcommand{\resizebox}[3]{%
  \sbox0{#3}\typeout{WIDE \the\wd0 OF \the\linewidth}\scaled{#1}{#2}{#3}}
\begin{document}
\input{table}
\end{document}
"""
"""It writes into the log how wide every grid is by itself."""
SLACK = 3.0  # points beyond the margin that nobody sees
ODD = "E: 50% of a_b & {c} #1 $x$ ~ ^ \\ <é ü ß ł> “q” 中 ρ → α\x07 ± ≥ − – † ‡ | * ` '\nTraceback"


def engine() -> tuple[str, ...]:
    """The command of a LaTeX engine; skips where there is none."""
    for name, options in ENGINES.items():
        if shutil.which(name):
            return (name, *options)
    pytest.skip("no LaTeX engine is installed: apt-get install texlive-latex-recommended")


def rows_of(kind: str) -> list[dict[str, Any]]:
    """Rows that suffice for a kind of table, with numbers, marks and faults of every sort."""
    if kind == "success":
        return test_success.rows("resnet18", 17) + test_success.rows("vgg11", 2)
    if kind == "detection":
        found = {"acc": 0.9, "recall": 0.99, "precision": 0.8, "f1": 0.885, "fpr": 0.16, "tp": 1}
        spec = "cifar10/{}/dvae_detect/resnet18/supervised/dvae/0"
        return [trial(spec.format(a), 0.9, detection=found) for a in ("lsp@0.4", "lsp@0.2")]
    rows = [
        trial(TOY.format(attack, defense, "supervised", seed), 0.2 + seed / 10)
        for attack in ("clean", "lsp", "lsp(budget=l2:2.0)", "lsp@0.4", "lsp(budget=2x)@0.4")
        for defense in ("standard", "jpeg", "jpeg(quality=50)", "early_stopping")
        for seed in (0, 1)
    ]
    rows += [trial(TOY.format("lsp", "standard", learner, 0), 0.5) for learner in SIX_LEARNERS[1:]]
    rows += [
        trial(f"cifar10/{attack}/standard/{network}/supervised/apbench/0", 0.3)
        for attack in ("clean", "em_apb", "em")
        for network in ("resnet18", "vit_small")
    ]
    for status in ("failed", "diverged"):
        lost = CIFAR.format(f'file(path="a_b & c%/{status}.npy")', "apbench", 0)
        rows.append(trial(lost, status=status, error=ODD))
    return rows


def log_of(made: Table, folder: Path) -> str:
    """What LaTeX says of a paper with the table, which it has to make."""
    command = engine()
    (folder / "table.tex").write_text(latex(made))
    (folder / "paper.tex").write_text(DOCUMENT)
    done = subprocess.run(
        [*command, "paper.tex"], cwd=folder, capture_output=True, text=True, errors="replace"
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert (folder / "paper.pdf").stat().st_size > 10_000
    log = folder / "paper.log"  # tectonic keeps none; what it says is the same
    return log.read_text(errors="replace") if log.exists() else done.stdout + done.stderr


def faults(log: str) -> list[str]:
    """The lines of text that go beyond the margin, and the tables that no page holds."""
    wide = re.findall(r"Overfull \\hbox \(([\d.]+)pt too wide\).*", log)
    long = re.findall(r"Float too large for page by [\d.]+pt", log)
    return [*long, *(f"{points} pt too wide" for points in wide if float(points) > SLACK)]


@pytest.mark.parametrize("kind", TABLE_KINDS)
def test_every_kind_of_table_compiles_and_fits_the_page(kind: str, tmp_path: Path) -> None:
    made = table(kind, trial_lines(rows_of(kind)))
    assert made.panels, f"these rows do not suffice for {kind}"
    assert not faults(log_of(made.with_intervals(), tmp_path))


def apbench(seeds: int) -> list[dict[str, Any]]:
    """Table 3 of APBench as if it had been run, each seed a point away from what is printed."""
    frame = as_if_run("apbench", "3")
    return [
        trial(spec.rpartition("/")[0] + f"/{seed}", acc + 0.01 * (seed - 1))
        for spec, acc in zip(frame["spec"], frame["final_acc"], strict=True)
        for seed in range(seeds)
    ]


def test_a_table_of_many_defenses_beside_print_is_neither_too_wide_nor_too_small(
    tmp_path: Path,
) -> None:
    """Attacks against 13 defenses: in blocks of columns of footnotes' size, hardly scaled down."""
    made = table("defense", trial_lines(apbench(3)))
    (panel,) = made.panels
    assert len(panel.columns) >= 13
    log = log_of(made, tmp_path)
    assert not faults(log)
    sizes = re.findall(r"WIDE ([\d.]+)ptOF ([\d.]+)pt", log)
    assert 1 < len(sizes) < 6
    assert all(float(room) / float(wide) > 0.85 for wide, room in sizes), "8 points become 7"
    assert max(float(wide) / float(room) for wide, room in sizes) > 0.8, "the width is used"
    shown = [panel.short[column] for column in panel.columns]
    text = (tmp_path / "table.tex").read_text()
    assert text.startswith(PREAMBLE)
    for name in shown:
        found = re.findall(rf"& {re.escape(escape(name))} (?:&|\\\\)", text)
        assert len(found) == 1, f"{name} is the head of one column"
    for printed_number in (r"[13.06 $\pm$ 0.74]", r"[80.14 $\pm$ 2.51]"):
        assert printed_number in text, "printed beside measured"


def test_a_table_that_fits_is_not_scaled(tmp_path: Path) -> None:
    rows = [trial(TOY.format("lsp", d, "supervised", 0), 0.3) for d in ("standard", "jpeg")]
    log = log_of(table("defense", trial_lines(rows)), tmp_path)
    ((wide, room),) = re.findall(r"WIDE ([\d.]+)ptOF ([\d.]+)pt", log)
    assert float(wide) < float(room)
    assert not faults(log)


def test_long_words_of_notes_break(tmp_path: Path) -> None:
    """A path and a number without a place to break at would go beyond the margin."""
    reason = f"/home/{'a_b/' * 40}x.npy and {'9' * 300} and --keep"
    rows = [
        trial(TOY.format("lsp", d, "supervised", 0), status="failed", error=reason)
        for d in ("standard", "jpeg")
    ]
    made = table("defense", trial_lines(rows))
    assert not faults(log_of(made, tmp_path))
    assert "and -{}-keep" in escape_lines(reason), "two hyphens stay two"


def test_no_letter_stops_the_engine(tmp_path: Path) -> None:
    """Of every block that names, paths and errors may have letters from."""
    command = engine()
    starts = (0x20, 0xA0, 0x100, 0x180, 0x370, 0x400, 0x2010, 0x2190, 0x2200, 0x2500, 0x4E00)
    text = "".join(chr(start + n) for start in starts for n in range(0x5F))
    lines = "\n\n".join(escape(text[n : n + 40]) for n in range(0, len(text), 40))
    (tmp_path / "table.tex").write_text(lines + escape("\U0001f600 \x07 \t"))
    (tmp_path / "paper.tex").write_text(DOCUMENT)
    done = subprocess.run(
        [*command, "paper.tex"], cwd=tmp_path, capture_output=True, text=True, errors="replace"
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert "中" not in escape("中"), "it is named by its number, since fonts lack it"
    assert escape("中") == "U+4E2D"
