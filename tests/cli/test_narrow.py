"""What commands print on a terminal of 80 columns; pipes get whole lines."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from raygrid.cli.evaluate import narrow_text, rows_text
from raygrid.core.text import wrapped
from tests.reports.rows import CIFAR, trial
from tests.reports.test_page import epochs, write_rows
from tests.terminals import watch

DEFENSES = ("standard", "none", "cutout", "cutmix", "mixup", "bdr", "grayscale", "jpeg", "gaussian")
ROWS = [
    {"set": "a/b/c", "attack": a, "final_acc": n / 7, "other_acc": -1e-9, "from": f"paper T{n}"}
    for n, a in enumerate(("clean", "lsp", "em(budget=16/255, mode=class)"))
]


def test_a_line_goes_on_to_the_right_and_words_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "ok  python  /a/very/long/path/that/stays-whole is one word and the rest comes below"
    monkeypatch.setenv("COLUMNS", "40")
    assert wrapped(line, 12) == line, "into a pipe as it is"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    first, *later = wrapped(line, 12).splitlines()
    assert first == "ok  python"
    assert all(text.startswith(" " * 12) for text in later)
    assert " ".join([first, *later]).split() == line.split(), "nothing is lost"
    assert "/a/very/long/path/that/stays-whole" in later[0]
    assert wrapped("short") == "short"


def test_rows_beyond_the_width_stand_below_behind_their_names() -> None:
    text = narrow_text(ROWS, 50)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 50
    assert lines[0] == "set a/b/c; other_acc 0.00 %", "said once, and no minus before a zero"
    heads = [line.split() for line in lines if line.startswith("attack")]
    assert heads == [["attack", "final_acc"], ["attack", "from"]], heads
    for row in ROWS:
        assert text.count(f"\n{row['attack']}  ") == 2
        assert str(row["from"]) in text
    assert "28.57 %" in text
    assert narrow_text(ROWS[:1], 300) == rows_text(ROWS[:1])


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine defenses, two seeds."""
    past = epochs(3, 0.3)
    rows = [
        trial(CIFAR.format(a, "apbench", s).replace("/standard/", f"/{d}/"), 0.2, history=past)
        for a in ("clean", "lsp", "em_apb")
        for d in DEFENSES
        for s in (0, 1)
    ]
    return write_rows(tmp_path_factory.mktemp("run"), rows)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("list", "architectures:"),
        ("list attacks", "no limit"),
        ("show em", "Printed test accuracies:"),
        ("plan --attacks clean lsp --datasets photo_digits --seeds 0 1", "on one CPU core or"),
        ("table defense --out OUT", "grayscale"),
        ("evaluate seeds --out OUT", "grayscale"),
        ("doctor --out OUT", "dataset tinyimagenet_first"),
    ],
)
def test_nothing_is_wider_than_the_terminal(words: str, said: str, out: Path) -> None:
    command = [sys.executable, "-m", "raygrid", *words.replace("OUT", str(out)).split()]
    env = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(Path(__file__).parents[2])}
    seen = watch(command, {**env, "RAYGRID_STORE": str(out / "store")})
    assert seen.rc == 0, seen.last
    assert said in seen.last
    assert not [line for line in seen.screens[-1] if len(line) > 80 and str(out) not in line]
