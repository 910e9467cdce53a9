"""LaTeX forms of tables: a LaTeX engine takes them, whatever stands in names, errors and notes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from raygrid.literature.names import SIX
from raygrid.reports.tables.kinds import KINDS, table
from raygrid.reports.tables.latex import escape, latex
from raygrid.reports.tables.trial_lines import trial_lines
from tests.reports import test_success
from tests.reports.test_tables import CIFAR, TOY, trial

pytestmark = pytest.mark.slow
ENGINES = {
    "pdflatex": ("-interaction=nonstopmode", "-halt-on-error"),
    "tectonic": ("--outfmt", "pdf"),
}
DOCUMENT = r"""\documentclass{article}
\usepackage{booktabs}
\begin{document}
\input{table}
\end{document}
"""
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
    rows += [trial(TOY.format("lsp", "standard", learner, 0), 0.5) for learner in SIX[1:]]
    rows += [
        trial(f"cifar10/{attack}/standard/{network}/supervised/apbench/0", 0.3)
        for attack in ("clean", "em_apb", "em")
        for network in ("resnet18", "vit_small")
    ]
    for status in ("failed", "skipped", "diverged"):
        lost = CIFAR.format(f'file(path="a_b & c%/{status}.npy")', "apbench", 0)
        rows.append(trial(lost, status=status, error=ODD, reason=ODD))
    return rows


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_table_compiles(kind: str, tmp_path: Path) -> None:
    command = engine()
    made = table(kind, trial_lines(rows_of(kind)))
    assert made.panels, f"these rows do not suffice for {kind}"
    (tmp_path / "table.tex").write_text(latex(made.with_intervals()))
    (tmp_path / "paper.tex").write_text(DOCUMENT)
    done = subprocess.run(
        [*command, "paper.tex"], cwd=tmp_path, capture_output=True, text=True, errors="replace"
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert (tmp_path / "paper.pdf").stat().st_size > 10_000


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
