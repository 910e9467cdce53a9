"""What happens in a run, told to whoever listens: the result log, MLflow, the display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:  # the process that writes to MLflow listens without torch
    from raygrid.engine.grid import Plan
    from raygrid.engine.schedule import Job
    from raygrid.trials.artifacts import Artifact
    from raygrid.trials.result import Result
    from raygrid.trials.trial import Trial

ArtifactState = Literal["making", "made", "reused", "failed"]


class Listener:
    """Base of listeners; every method may be called from the driver's thread only, in order.

    A listener that fails must not end the run: its errors are its own to report.
    """

    def started(self, plan: Plan, todo: Sequence[Trial]) -> None:
        """The run begins; `todo` are the trials that are not done yet."""

    def ahead(self, jobs: Mapping[str, Job]) -> None:
        """All jobs by key before any of them starts; the run takes out what is over."""

    def artifact(self, artifact: Artifact, state: ArtifactState, facts: dict[str, Any]) -> None:
        """An artifact changed its state; `facts` may hold seconds, memory_mb, bytes, an error."""

    def progress(self, artifact: Artifact, done: int, total: int, before: int) -> None:
        """So many units of an artifact are made; which units is its own affair.

        before: how many were when it went on from a checkpoint; 0 of one that began anew.
        """

    def trial_started(self, trial: Trial) -> None:
        """A trial begins to train (again, after a lost worker)."""

    def placed(self, key: str, where: str) -> None:
        """A job (an artifact's or a trial's key) runs at a place: a node, and a GPU of it."""

    def epoch(self, trial: Trial, metrics: dict[str, float]) -> None:
        """A trial finished an epoch."""

    def retried(self, label: str, why: str) -> None:
        """A job that was cut off will be tried again."""

    def note(self, text: str) -> None:
        """One line that a person may want to read and that belongs to no job."""

    def trial_finished(self, trial: Trial, result: Result) -> None:
        """A trial has its row, whatever its status."""

    def tables(self, files: Sequence[Path]) -> None:
        """The tables and figures of the grid were written."""

    def close(self, interrupted: bool) -> None:
        """The run is over; wait for what is still to be written."""


class Listeners(Listener):
    """Several listeners as one, in order."""

    def __init__(self, *members: Listener) -> None:
        self.members = members

    def started(self, plan: Plan, todo: Sequence[Trial]) -> None:
        for member in self.members:
            member.started(plan, todo)

    def ahead(self, jobs: Mapping[str, Job]) -> None:
        for member in self.members:
            member.ahead(jobs)

    def artifact(self, artifact: Artifact, state: ArtifactState, facts: dict[str, Any]) -> None:
        for member in self.members:
            member.artifact(artifact, state, facts)

    def progress(self, artifact: Artifact, done: int, total: int, before: int) -> None:
        for member in self.members:
            member.progress(artifact, done, total, before)

    def trial_started(self, trial: Trial) -> None:
        for member in self.members:
            member.trial_started(trial)

    def placed(self, key: str, where: str) -> None:
        for member in self.members:
            member.placed(key, where)

    def epoch(self, trial: Trial, metrics: dict[str, float]) -> None:
        for member in self.members:
            member.epoch(trial, metrics)

    def retried(self, label: str, why: str) -> None:
        for member in self.members:
            member.retried(label, why)

    def note(self, text: str) -> None:
        for member in self.members:
            member.note(text)

    def trial_finished(self, trial: Trial, result: Result) -> None:
        for member in self.members:
            member.trial_finished(trial, result)

    def tables(self, files: Sequence[Path]) -> None:
        for member in self.members:
            member.tables(files)

    def close(self, interrupted: bool) -> None:
        with ExitStack() as all_of_them:  # whatever one of them raises, as on a closed terminal
            for member in reversed(self.members):
                all_of_them.callback(member.close, interrupted)
