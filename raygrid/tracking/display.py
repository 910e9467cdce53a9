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

from raygrid.core.text import clock
from raygrid.engine.events import ArtifactState
from raygrid.engine.grid import Plan
from raygrid.tracking.counts import RunCounts, Running
from raygrid.trials.artifacts import Artifact
from raygrid.trials.result import Result
from raygrid.trials.trial import Trial

HEARTBEAT = 30.0  # seconds between status lines when nothing else is said


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


class ProgressDisplay(RunCounts):
    """Chooses the form by what the output is."""

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__()
        self.console = Console(file=stream or sys.stderr, highlight=False)
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
        elif state == "made":
            self._say(f"made {artifact.kind} {artifact.label} in {clock(facts['seconds'])}")

    def epoch(self, trial: Trial, metrics: dict[str, float]) -> None:
        super().epoch(trial, metrics)
        if self.live is None and time.monotonic() - self._spoke > HEARTBEAT:
            self._say(self.line())

    def retried(self, label: str, why: str) -> None:
        self._say(f"again {label}: {why}")

    def note(self, text: str) -> None:
        self._say(text)

    def trial_finished(self, trial: Trial, result: Result) -> None:
        super().trial_finished(trial, result)
        if result.status == "done":
            text = f"peak {percent(result.peak_acc)}, last {percent(result.last_acc)}"
            if result.knn_peak is not None:
                probe = f"probe {percent(result.probe_final)}, best {percent(result.probe_peak)}"
                text = f"{probe}, kNN {percent(result.knn_peak)}"
            text += "".join(f" ({mark})" for mark in result.marks)
        else:
            text = f"{result.status.upper()} {(result.error or '').splitlines()[0]}"
        count = f"[{self.already + self.done}/{self.total}]"
        self._say(f"{count} {trial.spec}  {text}  {clock(result.seconds)}")

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
        table = Table(show_header=False, box=None, padding=(0, 1))
        for job in self.running[:8]:
            text = Text(running_text(job), overflow="ellipsis", no_wrap=True)
            table.add_row(Text("…", style="cyan"), text)
        best = sorted(self.best.items(), key=lambda item: item[1].peak_acc or 0.0)[:4]
        for name, result in best:
            line = f"{name}: best defense so far {percent(result.peak_acc)}  ({result.spec})"
            table.add_row(Text("•"), Text(line, overflow="ellipsis", no_wrap=True, style="dim"))
        return Group(table, Text(self.line(), style="bold"))


def running_text(job: Running) -> str:
    """A running job in one line."""
    if not job.epoch:
        return job.what
    return f"{job.what}  epoch {job.epoch}/{job.epochs}  test {percent(job.test_acc)}"
