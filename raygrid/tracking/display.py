"""What a person sees while a grid runs: a live panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TextIO, cast

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from raygrid.core.text import clipped, clock, first_line, percent
from raygrid.engine.events import ArtifactState
from raygrid.engine.grid import Plan
from raygrid.tracking.counts import RunCounts, Running
from raygrid.trials.artifacts import Artifact
from raygrid.trials.result import Result, own_marks
from raygrid.trials.trial import Trial

JOB_LINES, HARDEST_LINES = 8, 3  # lines of jobs and of best defenses
BAR_LETTERS = 30
SHORTEST_NAME = 12  # letters of a name beside what is said of it
QUICK_SECONDS = 1.0  # seconds below which a bar tells enough of an artifact
HEARTBEAT_SECONDS = 30.0  # seconds between status lines when nothing else is said


class LastingStream:
    """A stream that drops what is written once it takes nothing any more; all else is its own.

    A terminal may go before the run does, as of a broken connection or a process that was disowned.
    The thread that draws a panel writes here too.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._gone = False

    def write(self, text: str) -> int:
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._attempt(self._stream.flush)

    def _attempt(self, action: Callable[[], object]) -> None:
        if self._gone:
            return
        try:
            action()
        except OSError:
            self._gone = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class ProgressDisplay(RunCounts):
    """Chooses the form by what the output is. One whose output is gone draws nothing more."""

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__()
        output = cast(TextIO, LastingStream(stream or sys.stderr))
        self.console = Console(file=output, highlight=False)
        self.live: Live | None = None
        self._spoke = time.monotonic()

    def started(self, plan: Plan, todo: Sequence[Trial]) -> None:
        super().started(plan, todo)
        if self.console.is_terminal and todo:
            self.live = Live(get_renderable=self._panel, console=self.console, transient=True)
            self.live.start()
        else:
            self._say(f"{len(todo)} of {len(plan.trials)} trials to run")

    def artifact(self, artifact: Artifact, state: ArtifactState, facts: dict[str, Any]) -> None:
        super().artifact(artifact, state, facts)
        if state == "failed":
            self._say(f"FAILED {artifact.kind} {artifact.label}: {facts.get('error')}")
        elif state == "made" and (self.live is None or facts["seconds"] >= QUICK_SECONDS):
            self._say(f"made {artifact.kind} {artifact.label} in {clock(facts['seconds'])}")

    def progress(self, artifact: Artifact, done: int, total: int, before: int) -> None:
        super().progress(artifact, done, total, before)
        self._beat()

    def epoch(self, trial: Trial, metrics: dict[str, float]) -> None:
        super().epoch(trial, metrics)
        self._beat()

    def _beat(self) -> None:
        """A line where nothing was said for a while; a panel needs none."""
        if self.live is None and time.monotonic() - self._spoke > HEARTBEAT_SECONDS:
            self._say(self.line())

    def retried(self, label: str, why: str) -> None:
        super().retried(label, why)
        self._say(f"again {label}: {why}")

    def note(self, text: str) -> None:
        self._say(text)

    def trial_finished(self, trial: Trial, result: Result) -> None:
        super().trial_finished(trial, result)
        count = f"[{self.already + self.done}/{self.total}]"
        text = f"{_outcome(result)}  {clock(result.seconds)}"
        name = str(trial.spec)
        if self.live is not None:  # lines that break would push the display about
            room = self.console.width - len(count) - len(text) - 3
            name = clipped(self.name_of(trial), max(room, SHORTEST_NAME))
        self._say(f"{count} {name}  {text}")

    def close(self, interrupted: bool) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None
        state = "stopped" if interrupted else "finished"
        self._say(f"{state} after {clock(self.elapsed)}: {self.line()}")

    def _say(self, text: str) -> None:
        self._spoke = time.monotonic()
        self.console.print(text, soft_wrap=True, markup=False)

    def _panel(self) -> Group:
        """What runs, bars of trials and artifacts, the time left; no line is wider than asked."""
        return Group(_jobs(self.running), _bars(self), _best(self))


def _outcome(result: Result) -> str:
    """How a trial ended: its accuracies with what is marked, or what became of it."""
    if result.status != "done":
        return f"{result.status.upper()} {first_line(result.error)}"
    text = f"peak {percent(result.peak_acc)}, last {percent(result.last_acc)}"
    if result.knn_peak is not None:
        text = f"probe {percent(result.probe_final)}, kNN {percent(result.knn_peak)}"
    return text + "".join(f" ({mark})" for mark in own_marks(result.marks))


class BothEnds:
    """A line that keeps both of its ends where it is too long, as these tell names apart."""

    def __init__(self, text: str, style: str) -> None:
        self.text, self.style = text, style

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown = clipped(self.text, max(options.max_width, 3))
        yield Text(shown, style=self.style, no_wrap=True)


def _jobs(running: Sequence[Running]) -> Table:
    """A line a job: its name, how far it is, accuracy, where. The name gives way to the rest."""
    table = Table(box=None, padding=(0, 1), header_style="dim", expand=True)
    table.add_column("running", ratio=1, no_wrap=True)
    for head in ("so far", "accuracy", "where"):
        table.add_column(head, justify="right", no_wrap=True, overflow="ellipsis", max_width=24)
    for job in running[:JOB_LINES]:
        name = BothEnds(job.name or job.what, "cyan")
        table.add_row(name, job.so_far, job.accuracy, Text(job.where))
    if len(running) > JOB_LINES:
        table.add_row(Text(f"and {len(running) - JOB_LINES} more", style="dim"), "", "", "")
    return table


def _bars(counts: RunCounts) -> Table:
    """How far trials and artifacts are, and how long the rest takes."""
    finished, artifacts = counts.already + counts.done, counts.made + counts.reused
    said = [f"{counts.failed} failed"] if counts.failed else []
    said += counts.beyond_numbers()
    if finished < counts.total and (left := counts.left) is not None:
        said.append(f"{clock(left)} left")
    reused = f"{counts.reused} reused" if counts.reused else ""
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(max_width=BAR_LETTERS)  # gives way to what is said beside it
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    for name, done, total, more in (
        ("trials", finished, counts.total, ", ".join(said)),
        ("artifacts", artifacts, max(counts.needed, artifacts), reused),
    ):
        bar = ProgressBar(total=max(total, 1), completed=done)
        table.add_row(Text(name, style="bold"), bar, f"{done}/{total}", Text(more, style="dim"))
    return table


def _best(counts: RunCounts) -> Table:
    """The best defense so far of the attacks that are hardest to defend against."""
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(ratio=1, no_wrap=True)
    hardest = counts.leaders.hardest(HARDEST_LINES)
    if hardest:
        table.add_row(Text("best defense so far against the strongest attacks", style="dim"))
    for leader in hardest:
        name = counts.cells.get(leader.cell, leader.cell)
        table.add_row(BothEnds(f"  {percent(leader.accuracy):>7}  {name}", "dim"))
    return table
