"""A run on a terminal of 80 columns, at every moment: a pseudo terminal, a real command."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from tests.terminals import Seen, watch

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
GRID = (
    *("run", "--datasets", "photo_digits(every=10)", "--executor", "inline", "--tracking", "off"),
    *("--attacks", "clean", "lsp", "lsp(budget=l2:2.5)", "regions"),
    *("--defenses", "standard", "grayscale", "jpeg(quality=10)"),
    *("--learners", "supervised", "simclr", "--architectures", "small_cnn"),
    *("--protocols", "quick(epochs=3)"),
)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    out = tmp_path_factory.mktemp("run")
    command = [sys.executable, "-m", "raygrid", *GRID, "--out", str(out)]
    env = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(Path(__file__).parents[2])}
    found = watch(command, env, limit=800)
    assert found.rc == 0, found.last
    return found


def moving(seen: Seen) -> list[list[str]]:
    """The screens with the live display."""
    return [screen for screen in seen.screens if any(line.startswith("trials ") for line in screen)]


def test_the_live_display_fits(seen: Seen) -> None:
    screens = moving(seen)
    assert len(screens) > 20
    assert not {line for screen in screens for line in screen if len(line) > 80}


def test_it_has_jobs_bars_and_the_time_left(seen: Seen) -> None:
    screens = ["\n".join(screen) for screen in moving(seen)]
    assert any(re.search(r"lsp l2 2\.5 · jpeg · \w+ +\d/3", screen) for screen in screens)
    assert any(re.search(r"simclr +\d/3 +kNN \d+\.\d %", screen) for screen in screens)
    assert any(re.search(r"supervised +\d/3 +\d+\.\d %", screen) for screen in screens)
    counts = [int(n) for screen in screens for n in re.findall(r"trials +[━╸╺]+ (\d+)/24", screen)]
    assert counts == sorted(counts)
    assert len(set(counts)) > 20
    assert any(re.search(r"trials .* \d+ s left", screen) for screen in screens)
    assert any(re.search(r"artifacts +[━╸╺]+ 1[0-3]/13", screen) for screen in screens)
    assert "best defense so far against the strongest attacks" in screens[-1]


def test_the_last_screen_says_what_was_found_and_where_it_is(seen: Seen) -> None:
    text = seen.last
    for line in (
        r"- strongest attack: .*, \d+\.\d % under standard \(of 3 attacks, clean \d+\.\d %\)",
        r"- best defense on average: (grayscale|jpeg), \d+\.\d % over 3 attacks",
        r"- best in the worst case: (grayscale|jpeg), \d+\.\d % under ",
        r"- strongest attack over 2 learners: .*; the best of them \(\w+\) reaches \d+\.\d %",
        r"one page to sort, filter and open: .*report\.html",
    ):
        assert re.search(line, text), line
    assert text.count("┃ attack") == 1, "one table"
    assert "underlined: strongest attack" in text
    assert "in Markdown" not in text
    assert "l2:1.304" not in text
    assert "nanobind" not in text
    found = text[text.index("finished after") :].splitlines()
    paths = [line for line in found if "tables: /" in line or "open: /" in line]
    assert not [line for line in found if len(line) > 80 and line not in paths]
