"""A grid of days is asked about on a terminal, and nowhere else."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from raygrid.cli.consent import ask_if_long
from raygrid.core.errors import SpecError
from raygrid.core.options import Options
from raygrid.engine.grid import plan
from raygrid.storage.store import Store
from tests.terminals import Seen, watch

LONG = [f"cifar10/em/standard/resnet18/supervised/apbench/{seed}" for seed in range(3)]
SHORT = ["photo_digits/clean/none/small_cnn/supervised/quick/0"]


@contextmanager
def at_a_terminal(monkeypatch: pytest.MonkeyPatch, piped: bool = False) -> Iterator[int]:
    """A terminal as standard input and error; what is written to the number was typed there.

    piped: whether the input is no terminal. (pytest has streams of its own until a test begins.)
    """
    hand, terminal = pty.openpty()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with (
        open(os.devnull if piped else os.dup(terminal)) as stdin,
        os.fdopen(terminal, "w") as stderr,
        monkeypatch.context() as here,
    ):
        here.setattr("sys.stdin", stdin)
        here.setattr("sys.stderr", stderr)
        yield hand
    os.close(hand)


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(out=tmp_path, executor="inline")


def asked(monkeypatch: pytest.MonkeyPatch, store: Store, options: Options, typed: str) -> str:
    """What the terminal shows once a question on a long grid was answered."""
    with at_a_terminal(monkeypatch) as keyboard:
        os.write(keyboard, typed.encode())
        ask_if_long(plan(LONG, None), store, options)
        shown = b""
        while b"[y/N]" not in shown:  # it comes in pieces
            shown += os.read(keyboard, 4096)
        return shown.decode()


@pytest.mark.parametrize("typed", ["n\n", "\n", "what?\n"])
def test_anything_but_yes_starts_nothing(
    monkeypatch: pytest.MonkeyPatch, store: Store, options: Options, typed: str
) -> None:
    with pytest.raises(SpecError, match="nothing was started; --yes starts it"):
        asked(monkeypatch, store, options, typed)


def test_the_question_says_how_long_it_takes_on_what(
    monkeypatch: pytest.MonkeyPatch, store: Store, options: Options
) -> None:
    shown = asked(monkeypatch, store, options, "y\n")
    assert re.search(r"this takes about \d+\.\d days on 1 CPU core; go on\? \[y/N\]", shown)
    shown = asked(monkeypatch, store, replace(options, executor="ray", cpus=4), "yes\n")
    assert " on 4 CPU cores; go on? [y/N]" in shown


@pytest.mark.parametrize("why", ["--yes", "a cluster", "short", "no terminal"])
def test_nobody_is_asked_without_need(
    why: str, monkeypatch: pytest.MonkeyPatch, store: Store, options: Options
) -> None:
    """What is not asked about waits for no answer: nothing was typed here."""
    changes = {"--yes": {"yes": True}, "a cluster": {"address": "auto", "executor": "ray"}}.get(
        why, {}
    )
    grid = plan(SHORT if why == "short" else LONG, None)
    with at_a_terminal(monkeypatch, piped=why == "no terminal") as keyboard:
        ask_if_long(grid, store, replace(options, **changes))  # type: ignore[arg-type]
        os.write(keyboard, b"end\n")
        assert os.read(keyboard, 100) == b"end\r\n", "the terminal shows what was typed alone"


# --- the command itself --------------------------------------------------------------------------

DAYS = (
    *("run", "--datasets", "photo_digits", "--attacks", "lsp", "--defenses", "standard"),
    *("--architectures", "resnet50", "--learners", "supervised", "--protocols", "apbench"),
    *("--seeds", *map(str, range(40)), "--executor", "inline", "--tracking", "off"),
)
BEGUN = "0/40"
"""The bar of a run that was started; Ctrl-C ends it."""
ended = pytest.mark.timeout(600)


def command(out: Path, *words: str) -> tuple[list[str], dict[str, str]]:
    env = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(Path(__file__).parents[2])}
    return [sys.executable, "-m", "raygrid", *DAYS, "--out", str(out), *words], env


def on_a_terminal(out: Path, answers: dict[str, str], *words: str) -> Seen:
    return watch(*command(out, *words), answers=answers)


def asks(seen: Seen) -> list[str]:
    return [line for screen in seen.screens for line in screen if "[y/N]" in line]


@pytest.mark.slow
@ended
def test_a_no_on_a_terminal_starts_nothing(tmp_path: Path) -> None:
    """What is left is the data as the plan decoded them, for the run that may come."""
    seen = on_a_terminal(tmp_path / "out", {"[y/N]": "n\n"})
    assert seen.rc == 2, seen.last
    assert "nothing was started; --yes starts it" in seen.last
    assert re.search(r"takes about \d[\d.]* (days|years) on 1 CPU core; go on\?", asks(seen)[0])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["store"]
    kinds = [path.name for path in (tmp_path / "out" / "store").glob("*/*")]
    assert kinds == ["dataset"]


@pytest.mark.slow
@ended
@pytest.mark.parametrize("words", [(), ("--yes",)], ids=["yes typed", "--yes"])
def test_a_yes_on_a_terminal_starts_it(tmp_path: Path, words: tuple[str, ...]) -> None:
    """The answer or the flag; with the flag nobody is asked."""
    answers = {BEGUN: "\x03", **({} if words else {"[y/N]": "y\n"})}
    seen = on_a_terminal(tmp_path / "out", answers, *words)
    assert seen.rc == 130, seen.last
    assert "run the same command again to continue" in seen.last
    assert bool(asks(seen)) == (not words)
    assert (tmp_path / "out" / "status.json").exists()


@pytest.mark.slow
@ended
def test_without_a_terminal_it_starts_at_once(tmp_path: Path) -> None:
    line, env = command(tmp_path / "out")
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(line, env=env, text=True, **pipes) as process:  # type: ignore[call-overload]
        status = tmp_path / "out" / "status.json"
        until = time.monotonic() + 240
        while not status.exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.2)
        process.terminate()
        said, complained = process.communicate(timeout=240)
    assert status.exists(), complained
    assert process.returncode == 130, complained
    assert "[y/N]" not in said + complained
