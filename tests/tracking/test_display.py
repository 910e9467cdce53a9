"""What a person sees of a run: plain lines in a file, a panel on a terminal."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from raygrid.api.run_grid import Options, Outcome, run_grid
from raygrid.cli.run import print_outcome
from raygrid.core.text import clock
from raygrid.engine.grid import plan
from raygrid.tracking.counts import Running
from raygrid.tracking.display import ProgressDisplay, running_text
from tests import plugin

assert plugin.CARD
SPECS = [f"dots/{attack}/none/small_cnn/supervised/brief/0" for attack in ("clean", "slow_shift")]


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(out=tmp_path / "out", data=tmp_path / "data", executor="inline")


def test_plain_lines_tell_every_event_once(options: Options) -> None:
    stream = io.StringIO()
    display = ProgressDisplay(stream)
    run_grid(SPECS, options, display)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "2 of 2 trials to run"
    assert sum(line.startswith("made poison slow_shift") for line in lines) == 1
    assert [line[:5] for line in lines if line.startswith("[")] == ["[1/2]", "[2/2]"]
    assert lines[-1].startswith("finished after ")
    assert "2/2 trials, 0 running, 0 failed" in lines[-1]
    assert set(display.best) == {"clean", "slow_shift"}


def test_a_terminal_gets_a_panel(options: Options) -> None:
    stream = Terminal()
    run_grid(SPECS, options, ProgressDisplay(stream))
    text = stream.getvalue()
    assert "\x1b[" in text
    assert "[2/2]" in text


def test_a_second_run_says_what_is_there(options: Options) -> None:
    run_grid(SPECS, options)
    stream = io.StringIO()
    run_grid(SPECS, options, ProgressDisplay(stream))
    assert "0 of 2 trials to run" in stream.getvalue()
    assert "2/2 trials, 2 from earlier runs" in stream.getvalue()


def test_running_jobs_and_times_are_short() -> None:
    assert running_text(Running("poison em on x", since=0.0)) == "poison em on x"
    job = Running("a/b/0", since=0.0, epoch=3, epochs=9, test_acc=0.512)
    assert running_text(job) == "a/b/0  epoch 3/9  test 51.2 %"
    assert [clock(s) for s in (45.4, 200, 7500)] == ["45 s", "3:20", "2:05:00"]
    long = (36 * 3600, 84 * 3600, 63802 * 3600 + 35 * 60 + 55)
    assert [clock(s) for s in long] == ["36:00:00", "3.5 days", "7.3 years"]


@pytest.mark.parametrize("start", ["", "uv run "])
def test_the_end_names_a_command_that_the_shell_finds(
    start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under `uv run` nothing of its environment is on the path of the shell."""
    monkeypatch.delenv("UV", raising=False)
    if start:
        monkeypatch.setenv("UV", "/usr/bin/uv")
    print_outcome(Outcome(plan([], None), [], 0, 0.0), Options(out=tmp_path))
    assert f"compare runs: {start}mlflow ui --backend" in capsys.readouterr().out
