"""What a person sees while a grid runs: a live panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from raygrid.artifacts import Artifact
from raygrid.estimate import CPU, trial_seconds
from raygrid.events import ArtifactState, Listener
from raygrid.grid import Plan
from raygrid.resolve import Trial
from raygrid.result import Result

HEARTBEAT = 30.0  # seconds between status lines when nothing else is said


class Score:
    """The counts behind the display, and the time left by estimated work."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.total = self.already = self.done = self.failed = 0
        self.made = self.reused = 0
        self.work_total = self.work_done = 0.0
        self.running: dict[str, str] = {}
        self.best: dict[str, Result] = {}

    def begin(self, plan: Plan, todo: Sequence[Trial]) -> None:
        self.started = time.monotonic()
        self.total = len(plan.trials)
        self.already = self.total - len(todo)
        self.work_total = sum(trial_seconds(t, CPU) for t in todo)

    def finish(self, trial: Trial, result: Result) -> None:
        if result.derived_from is None:
            self.done += 1
            self.work_done += trial_seconds(trial, CPU)
        self.failed += result.status in ("failed", "diverged")
        self.running.pop(trial.key, None)
        if result.peak_acc is not None:
            self._compare(trial, result)

    def _compare(self, trial: Trial, result: Result) -> None:
        """Keep the strongest defense seen for each attack."""
        name = str(trial.attack.part())
        best = self.best.get(name)
        if best is None or (best.peak_acc or 0.0) < (result.peak_acc or 0.0):
            self.best[name] = result

    @property
    def left(self) -> float | None:
        """Seconds left, None before there is anything to go by."""
        if self.work_done == 0:
            return None
        elapsed = time.monotonic() - self.started
        return elapsed * (self.work_total - self.work_done) / self.work_done

    def line(self) -> str:
        """One line: counts and time left."""
        parts = [f"{self.already + self.done}/{self.total} trials"]
        if self.already:
            parts.append(f"{self.already} from earlier runs")
        parts += [f"{len(self.running)} running", f"{self.failed} failed"]
        parts.append(f"artifacts {self.made} made, {self.reused} reused")
        if self.left is not None and self.done + self.already < self.total:
            parts.append(f"{clock(self.left)} left")
        return ", ".join(parts)


def clock(seconds: float) -> str:
    """A duration as a person reads it: 45 s, 3:20, 2:05:00."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


class Display(Listener):
    """Chooses the form by what the output is."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.console = Console(file=stream or sys.stderr, highlight=False)
        self.score = Score()
        self.live: Live | None = None
        self._spoke = time.monotonic()

    def started(self, plan: Plan, todo: Sequence[Trial]) -> None:
        self.score.begin(plan, todo)
        if self.console.is_terminal and todo:
            self.live = Live(get_renderable=self._panel, console=self.console, transient=True)
            self.live.start()
        else:
            self._say(f"{len(todo)} of {len(plan.trials)} trials to run")

    def artifact(self, artifact: Artifact, state: ArtifactState, facts: dict[str, Any]) -> None:
        self.score.made += state == "made"
        self.score.reused += state == "reused"
        if state == "making":
            self.score.running[artifact.key] = f"{artifact.kind}: {artifact.label}"
            return
        self.score.running.pop(artifact.key, None)
        if state == "failed":
            self._say(f"FAILED {artifact.kind} {artifact.label}: {facts.get('error')}")
        elif state == "made":
            self._say(f"made {artifact.kind} {artifact.label} in {clock(facts['seconds'])}")

    def trial_started(self, trial: Trial) -> None:
        self.score.running[trial.key] = str(trial.spec)

    def epoch(self, trial: Trial, metrics: dict[str, float]) -> None:
        if "epoch" in metrics:
            planned = trial.recipe.epochs
            accuracy = percent(metrics.get("test_acc"))
            text = f"{trial.spec}  epoch {metrics['epoch']:.0f}/{planned}  test {accuracy}"
            self.score.running[trial.key] = text
        if self.live is None and time.monotonic() - self._spoke > HEARTBEAT:
            self._say(self.score.line())

    def retried(self, label: str, why: str) -> None:
        self._say(f"again {label}: {why}")

    def trial_finished(self, trial: Trial, result: Result) -> None:
        self.score.finish(trial, result)
        if result.status == "done":
            text = f"peak {percent(result.peak_acc)}, last {percent(result.last_acc)}"
            text += "".join(f" ({mark})" for mark in result.marks)
        else:
            text = f"{result.status.upper()} {(result.error or '').splitlines()[0]}"
        count = f"[{self.score.already + self.score.done}/{self.score.total}]"
        self._say(f"{count} {trial.spec}  {text}  {clock(result.seconds)}")

    def close(self, interrupted: bool) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None
        state = "stopped" if interrupted else "finished"
        elapsed = clock(time.monotonic() - self.score.started)
        self._say(f"{state} after {elapsed}: {self.score.line()}")

    def _say(self, text: str) -> None:
        self._spoke = time.monotonic()
        self.console.print(text, soft_wrap=True, markup=False)

    def _panel(self) -> Group:
        table = Table(show_header=False, box=None, padding=(0, 1))
        for text in list(self.score.running.values())[:8]:
            table.add_row(Text("…", style="cyan"), Text(text, overflow="ellipsis", no_wrap=True))
        best = sorted(self.score.best.items(), key=lambda item: item[1].peak_acc or 0.0)[:4]
        for name, result in best:
            line = f"{name}: best defense so far {percent(result.peak_acc)}  ({result.spec})"
            table.add_row(Text("•"), Text(line, overflow="ellipsis", no_wrap=True, style="dim"))
        return Group(table, Text(self.score.line(), style="bold"))
