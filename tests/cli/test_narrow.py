"""What commands print on a terminal of 80 columns; pipes get whole lines."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from raygrid.cli.row_text import narrow_text, rows_text
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
    assert heads == [["attack", "final_acc", "from"]], "names are short"
    assert [line.split()[0] for line in lines[2:]] == ["clean", "lsp", "em"]
    assert all(str(row["from"]) in text for row in ROWS)
    assert "28.57 %" in text
    narrower = narrow_text(ROWS, 20).splitlines()
    for name in ("clean", "lsp", "em"):
        assert sum(line.startswith(f"{name} ") for line in narrower) == 2, "before each block"
    assert narrow_text(ROWS[:1], 300) == rows_text(ROWS[:1])


def spread(defense: str, attack: str, **more: object) -> dict[str, object]:
    """A row as of `evaluate seeds`: a ratio stands among its names."""
    axes = {"dataset": "cifar10", "poison_ratio": 1.0, "defense": defense, "attack": attack}
    return {**axes, "acc": 0.5, "low_acc": 0.25, "high_acc": 0.75, **more}


def test_every_block_says_which_defense_and_attack_a_number_belongs_to() -> None:
    rows = [spread(d, a, n=n) for n, d in enumerate(("jpeg", "bdr")) for a in ("lsp", "tap")]
    lines = narrow_text(rows, 30).splitlines()
    assert lines[0].startswith("dataset cifar10; poison_ratio 1.000; acc 50.00 %")
    rows = [{**row, "acc": 0.1 * n, "low_acc": 0.0, "from": n} for n, row in enumerate(rows)]
    lines = narrow_text(rows, 30).splitlines()
    for number, row in enumerate(rows):
        begin = f"{row['defense']:9}{row['attack']:8}"
        own = [line.removeprefix(begin) for line in lines if line.startswith(begin)]
        assert " ".join(own).split() == [f"{10 * number:.2f}", "%", str(row["n"]), str(number)]


def test_rows_that_differ_in_their_names_alone_are_all_there() -> None:
    lines = narrow_text([spread(d, "lsp") for d in ("jpeg", "bdr")], 300).splitlines()
    assert lines[1:] == ["defense", "jpeg", "bdr"]
    assert narrow_text([spread("jpeg", "lsp")] * 2, 300).count("\n") == 0


def test_long_texts_stand_once_below_by_their_numbers() -> None:
    said = "n = 2: the interval is the mean ± 8.98 s, from 0 to 1"
    rows = [spread(d, "lsp", note=said if d != "bdr" else None) for d in ("jpeg", "bdr", "none")]
    lines = narrow_text(rows, 50).splitlines()
    assert lines[-1] == f"(1) {said}"
    assert [line.split() for line in lines if line[:4] in ("jpeg", "bdr ", "none")] == [
        *(["jpeg", "(1)"], ["bdr", "-"], ["none", "(1)"])
    ]


def test_rows_whose_names_leave_no_room_are_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    places = [f"cifar10/{net}/supervised/fast(rung=minutes)" for net in ("vgg11", "resnet18")]
    rows = [
        {"setting": s, "group": f"group {n} of them", **spread(f"{'d' * 15}{n}", a, acc=n / 10)}
        for n, (s, a) in enumerate((s, a) for s in places for a in ("lsp", "em"))
    ]
    lines = narrow_text(rows, 60).splitlines()
    assert max(map(len, lines)) <= 60
    said = " ".join(" ".join(lines).split())
    assert "setting cifar10/…/supervised/fast(rung=minutes)" in said
    place = lines.index("resnet18  group 3 of them  ddddddddddddddd3  em")
    assert lines[place + 1] == "  acc 30.00 %"


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
