"""What a person sees of a run: plain lines in a file, a panel on a terminal."""

from __future__ import annotations

import contextlib
import io
import os
import re
from pathlib import Path

import pytest
from rich.console import Console

from raygrid.api.run_grid import Options, Outcome, run_grid
from raygrid.cli.outcome import print_outcome
from raygrid.core.text import about, clock
from raygrid.engine.grid import plan
from raygrid.tracking.counts import Running
from raygrid.tracking.display import ProgressDisplay
from raygrid.tracking.mlflow.view import VIEW_QUERY
from raygrid.tracking.remaining import Remaining
from raygrid.trials.result import OTHER_FILES, Result
from tests import plugin

pytestmark = pytest.mark.usefixtures("undrawn")

assert plugin.CARD
UI = "http://127.0.0.1:5000"
OWN = f"{UI}/#/experiments/1/runs?{VIEW_QUERY}"
SPECS = [f"dots/{attack}/none/small_cnn/supervised/brief/0" for attack in ("clean", "slow_shift")]


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        return True


def test_plain_lines_tell_every_event_once(options: Options) -> None:
    stream = io.StringIO()
    display = ProgressDisplay(stream)
    run_grid(SPECS, options, display)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "2 of 2 trials to run"
    assert sum(line.startswith("made poison slow_shift") for line in lines) == 1
    assert [line[:5] for line in lines if line.startswith("[")] == ["[1/2]", "[2/2]"]
    assert lines[-1].startswith("finished after ")
    assert "2/2 trials, 0 failed" in lines[-1]


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


@pytest.mark.parametrize("when", ["before the run", "while it is drawn on"])
def test_a_terminal_that_is_gone_ends_no_run(options: Options, when: str) -> None:
    """Its connection broke, or the run was disowned and the window closed."""
    other, terminal = os.openpty()
    # What is left to write is tried once more where the stream is closed.
    with contextlib.suppress(OSError), open(terminal, "w", encoding="utf-8") as stream:
        display = ProgressDisplay(stream)
        if when == "while it is drawn on":
            grid = plan(SPECS, None)
            display.started(grid, grid.trials)
            assert display.live is not None
        os.close(other)
        display.note("nobody reads this")
        display.close(interrupted=False)
        run_grid(SPECS, options, display)
    assert display.done == 2


def panel(display: ProgressDisplay, width: int = 80) -> list[str]:
    """The lines of the live display on a terminal so wide."""
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=True, color_system=None).print(display._panel())
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_the_panel_fits_whatever_runs() -> None:
    where = "photo_digits/lsp(budget=l2:1.3041323727577427, patch=4)/{}/small_cnn/simclr/quick/0"
    grid = plan([where.format(d) for d in ("jpeg(quality=10)", "grayscale+jpeg", "none")], None)
    display = ProgressDisplay(io.StringIO())
    display.started(grid, grid.trials)
    for number, trial in enumerate(grid.trials):
        display.trial_started(trial)
        display.placed(trial.key, "a-machine-with-a-long-name.example.org GPU 7")
        display.epoch(trial, {"epoch": number + 1.0, "test_acc": 0.512})
    lines = panel(display)
    assert max(map(len, lines)) <= 80
    names = {line.split("  ")[0].strip(): line for line in lines}
    assert re.search(r"lsp · jpeg .* 1/\d+ +kNN 51\.2 % +a-machine", names["lsp · jpeg"])
    assert any(re.fullmatch(r"trials +\S* *0/2", line) for line in lines)
    assert any(re.fullmatch(r"artifacts +\S* *0/\d", line) for line in lines)
    assert max(map(len, panel(display, 50))) <= 50
    for copy in range(20):
        display.trials[f"copy {copy}"] = Running("x" * 200, since=0.0)
    assert any("and 14 more" in line for line in panel(display))
    assert len(panel(display)) < 24
    assert max(map(len, panel(display))) <= 80


CELL = "photo_digits/{}/small_cnn/{}/quick/{}"
FINISHED = {
    ("lsp/jpeg", "supervised", 0): (0.6, 0.9),
    ("lsp/jpeg", "supervised", 1): (0.5, 0.9),
    ("lsp/grayscale", "supervised", 0): (0.5, 0.99),
    ("lsp/none", "supervised", 0): (0.95, 0.95),
    ("lsp/early_stopping", "supervised", 0): (0.97, 0.97),
    ("lsp@0.2/grayscale", "supervised", 0): (0.8, 0.8),
    ("lsp/jpeg", "simclr", 0): (0.3, None),
    ("regions/grayscale", "supervised", 0): (0.7, 0.7),
    ("clean/jpeg", "supervised", 0): (0.2, 0.2),
    ("withheld@0.2/jpeg", "supervised", 0): (0.1, 0.1),
    ("regions/jpeg", "supervised", 0): (None, 0.9),
}
"""By cell, learner and seed the final and the highest accuracy; the last trial stopped early."""


def test_the_best_defenses_so_far_are_defenses_of_whole_poisons_by_their_final_accuracy() -> None:
    """Over seeds, each setting by itself; no control, no oracle and no victim without a defense."""
    grid = plan([CELL.format(*where) for where in FINISHED], None)
    trials = {str(trial.spec): trial for trial in (*grid.trials, *grid.derived)}
    display = ProgressDisplay(io.StringIO())
    display.started(grid, grid.trials)
    for where, (final, peak) in FINISHED.items():
        trial = trials[CELL.format(*where)]
        result = Result(str(trial.spec), trial.key, final_acc=final, peak_acc=peak)
        display.trial_finished(trial, result)
    lines = panel(display)
    start = lines.index("best defense so far against the strongest attacks")
    assert [line.strip() for line in lines[start + 1 :]] == [
        "30.0 %  lsp · 100 % · jpeg · simclr",
        "55.0 %  lsp · 100 % · jpeg · supervised",
        "70.0 %  regions · 100 % · grayscale · supervised",
    ]


def test_names_that_are_too_long_keep_both_ends_and_bars_give_way() -> None:
    """What tells trials apart is as often at their end as at their beginning."""
    display = ProgressDisplay(io.StringIO())
    display.total, display.done, display.failed, display.diverged = 5400, 1834, 3, 12
    name = "tap(steps=60, surrogate=small_airbench, surrogate_epochs=10) · resnet18 · {}"
    for seed in (0, 1):
        display.trials[str(seed)] = Running("x", 0.0, name.format(seed), "GPU 3", 7, 60)
    rest = display.work = Remaining({}, 0.0)
    rest.left = lambda now: 5.0 * 86400  # type: ignore[method-assign]
    lines = panel(display)
    assert max(map(len, lines)) <= 80
    for seed in "01":
        assert [line for line in lines if re.match(rf" tap\(st.*… ?.*resnet18 · {seed}  ", line)]
    (trials,) = [line for line in lines if line.startswith("trials")]
    assert trials.endswith(" 1834/5400 3 failed, 12 diverged, 5.0 days left")


def test_running_jobs_and_times_are_short() -> None:
    assert Running("poison em on x", since=0.0).accuracy == ""
    assert Running("a/b/0", since=0.0, test_acc=0.512).accuracy == "51.2 %"
    assert Running("a/b/0", since=0.0, test_acc=0.512, knn=True).accuracy == "kNN 51.2 %"
    assert [clock(s) for s in (45.4, 200, 7500)] == ["45 s", "3:20", "2:05:00"]
    long = (36 * 3600, 84 * 3600, 63802 * 3600 + 35 * 60 + 55)
    assert [clock(s) for s in long] == ["36:00:00", "3.5 days", "7.3 years"]
    assert [about(s) for s in (45.4, 59.6, 200, 7500)] == [
        *("45 s", "1.0 minutes", "3.3 minutes", "2.1 hours")
    ]
    assert [about(s) for s in long] == ["36.0 hours", "3.5 days", "7.3 years"]


@pytest.mark.parametrize("start", ["", "uv run "])
def test_the_end_names_a_command_that_the_shell_finds(
    start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under `uv run` nothing of its environment is on the path of the shell."""
    monkeypatch.delenv("UV", raising=False)
    if start:
        monkeypatch.setenv("UV", "/usr/bin/uv")
    specs = [f"dots/lsp/none/small_cnn/supervised/brief(epochs={n})/0" for n in (1, 2)]
    rows = [Result(spec, spec, final_acc=0.5, peak_acc=0.5) for spec in specs]
    print_outcome(Outcome(plan([], None), rows, 0, 0.0), Options(out=tmp_path))
    told = capsys.readouterr().out
    assert f"compare runs: {start}mlflow ui --backend" in told
    assert f"1 more table of this kind: {start}raygrid table defense --out {tmp_path}" in told


@pytest.mark.parametrize(
    ("tracking", "variable", "said"),
    [
        (None, "", ["mlflow ui --backend-store-uri sqlite:///{out}/mlflow.db", OWN]),
        (None, "http://127.0.0.1:5055", ["http://127.0.0.1:5055"]),
        ("https://me:mine@host/mlflow", "http://127.0.0.1:5055", ["https://***@host/mlflow"]),
        (None, "sqlite:////x/y.db", ["mlflow ui --backend-store-uri sqlite:////x/y.db", UI]),
        ("off", "http://127.0.0.1:5055", []),
    ],
)
def test_the_end_names_the_mlflow_that_has_the_runs(
    tracking: str | None,
    variable: str,
    said: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With MLFLOW_TRACKING_URI it named a database that was not there."""
    monkeypatch.delenv("UV", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", variable)
    spec = "dots/lsp/none/small_cnn/supervised/brief(epochs=1)/0"
    rows = [Result(spec, spec, final_acc=0.5, peak_acc=0.5)]
    options = Options(out=tmp_path, tracking=tracking)
    print_outcome(Outcome(plan([], None), rows, 0, 0.0), options)
    ends = capsys.readouterr().out.partition("report.html\n")[2].splitlines()
    first = ["compare runs: ", "then open "]
    lines = [start + end.format(out=tmp_path) for start, end in zip(first, said, strict=False)]
    assert ends == lines


def test_a_trial_that_failed_without_a_word_is_still_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    specs = [f"dots/lsp/none/small_cnn/supervised/brief(epochs={n})/0" for n in (1, 2)]
    words = ("", "it broke\nhere")
    rows = [Result(s, s, status="failed", error=e) for s, e in zip(specs, words, strict=True)]
    print_outcome(Outcome(plan([], None), rows, 0, 0.0), Options(out=tmp_path))
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAILED")]
    assert told == [f"FAILED {specs[0]}: ", f"FAILED {specs[1]}: it broke"]


def test_lines_of_finished_trials_fit_with_the_display(options: Options) -> None:
    where = "photo_digits/{}/jpeg(quality=10)/small_cnn/{}/quick/0"
    names = ("lsp(budget=l2:1.5)", "lsp(budget=l2:2.5, patch=4)", "clean")
    grid = plan([where.format(a, n) for a in names for n in ("simclr", "supervised")], None)
    stream = Terminal()
    display = ProgressDisplay(stream)
    display.started(grid, grid.trials)
    assert display.live is not None
    for trial in grid.trials:
        result = Result(str(trial.spec), trial.key, resolved=trial.resolved(), seconds=7200.0)
        result.marks = [f"{OTHER_FILES}photo_digits (JPEG files)"]  # the plan has said it
        result.history = [{"epoch": 1.0, "test_acc": 0.5, "train_loss": 1.0}]
        result.probe_final = 0.25
        result.probes = {"clean_test": {"k": 1.0, "n": 2.0, "acc": 0.5, "loss": 1.0}}
        result.summarize()
        display.trial_finished(trial, result)
    display.close(interrupted=False)
    said = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue()).splitlines()
    lines = [line.strip("\r") for line in said if re.match(r"\r?\[\d/6\]", line)]
    assert len(lines) == 6
    assert max(map(len, lines)) <= 80
    named = {line.split("]")[1].split("  ")[0].strip(): line for line in lines}
    assert "kNN 50.0 %  2:00:00" in named["lsp l2 1.5 · simclr"]
    assert "peak 50.0 %, last 50.0 %  2:00:00" in named["clean · supervised"]
