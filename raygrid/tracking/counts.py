"""The running count of a grid: what is done, what runs, how long the rest will take."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raygrid.core.text import clock, percent
from raygrid.engine.events import ArtifactState, Listener
from raygrid.engine.grid import Plan
from raygrid.engine.schedule import Job
from raygrid.tracking.leaders import Leaders, cell_of
from raygrid.tracking.names import names_of
from raygrid.tracking.remaining import Remaining
from raygrid.trials.artifacts import Artifact
from raygrid.trials.result import Result
from raygrid.trials.trial import Trial


@dataclass
class Running:
    """A job that runs.

    since: seconds since 1970. name: the shortest that tells it apart. epoch: the last that ended,
    of a trial; knn: whether its accuracy is one of nearest neighbors. share: what is made of an
    artifact, 0 to 1; None before it has said so.
    """

    what: str
    since: float
    name: str = ""
    where: str = ""
    epoch: int = 0
    epochs: int = 0
    test_acc: float | None = None
    knn: bool = False
    share: float | None = None

    @property
    def so_far(self) -> str:
        """How far it is: epochs of a trial, a share of an artifact."""
        if self.share is not None:
            return f"{100 * self.share:.0f} %"
        return f"{self.epoch}/{self.epochs}" if self.epochs else ""

    @property
    def accuracy(self) -> str:
        """That of the last epoch; a contrastive learner's is one of nearest neighbors."""
        if self.test_acc is None:
            return ""
        return f"{'kNN ' * self.knn}{percent(self.test_acc)}"


class RunCounts(Listener):
    """Counts the events of a run; base of all that tell people how it is doing.

    now: seconds since 1970.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self.now = now
        self.begun = now()
        self.total = self.already = self.done = self.failed = self.diverged = 0
        self.made = self.reused = self.needed = 0
        self.names: Mapping[str, str] = {}
        self.work: Remaining | None = None
        self.trials: dict[str, Running] = {}
        self.builds: dict[str, Running] = {}
        self.cells: Mapping[str, str] = {}
        self.leaders = Leaders()

    def started(self, plan: Plan, todo: Sequence[Trial]) -> None:
        self.begun = self.now()
        self.total = len(plan.trials)
        self.already = self.total - len(todo)
        self.needed = len(Plan(trials=list(todo)).artifacts)
        every = (*plan.trials, *plan.derived)
        self.names = names_of(str(trial.spec) for trial in every)
        self.cells = names_of(str(cell_of(trial.spec)) for trial in every)

    def ahead(self, jobs: Mapping[str, Job]) -> None:
        self.work = Remaining(jobs, self.now())
        self.needed = self.made + self.reused + sum(j.artifact is not None for j in jobs.values())

    def artifact(self, artifact: Artifact, state: ArtifactState, facts: dict[str, Any]) -> None:
        self.made += state == "made"
        self.reused += state == "reused"
        if state == "making":
            self.builds[artifact.key] = Running(f"{artifact.kind} {artifact.label}", self.now())
        else:
            self.builds.pop(artifact.key, None)
            if self.work is not None:
                self.work.finished(artifact.key, worked=state == "made")

    def retried(self, label: str, why: str) -> None:
        for jobs in (self.trials, self.builds):
            for key in [key for key, job in jobs.items() if job.what == label]:
                del jobs[key]  # it waits for a worker

    def progress(self, artifact: Artifact, done: int, total: int, before: int) -> None:
        job = self.builds.get(artifact.key)
        if job is not None:
            job.share = done / total
        if self.work is not None:
            self.work.reached(artifact.key, done, total, before)

    def trial_started(self, trial: Trial) -> None:
        job = Running(str(trial.spec), self.now(), self.name_of(trial), knn=trial.learner.views > 0)
        job.epochs = trial.recipe.epochs
        self.trials[trial.key] = job

    def name_of(self, trial: Trial) -> str:
        """The shortest name that tells a trial apart in its grid."""
        return self.names.get(str(trial.spec), str(trial.spec))

    def placed(self, key: str, where: str) -> None:
        for known in (self.trials, self.builds):
            if key in known:
                known[key].where = where

    def epoch(self, trial: Trial, metrics: dict[str, float]) -> None:
        job = self.trials.get(trial.key)
        if job is not None and "epoch" in metrics:
            job.epoch = int(metrics["epoch"])
            job.test_acc = metrics.get("test_acc")
            if self.work is not None:
                self.work.reached(trial.key, job.epoch, job.epochs, job.epoch - 1)

    def trial_finished(self, trial: Trial, result: Result) -> None:
        if result.derived_from is None:
            self.done += 1
            self.failed += result.status == "failed"
            self.diverged += result.status == "diverged"
        if self.work is not None:
            self.work.finished(trial.key, worked=result.status == "done")
        self.trials.pop(trial.key, None)
        self.leaders.add(trial, result)

    @property
    def running(self) -> list[Running]:
        return [*self.trials.values(), *self.builds.values()]

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return self.now() - self.begun

    @property
    def left(self) -> float | None:
        """Seconds left by estimated work, None before there is anything to go by."""
        return None if self.work is None else self.work.left(self.now())

    def beyond_numbers(self) -> list[str]:
        """How many trials left the finite numbers, if any: a result, which nobody tries again."""
        return [f"{self.diverged} diverged"] if self.diverged else []

    def line(self) -> str:
        """One line: counts and time left."""
        parts = [f"{self.already + self.done}/{self.total} trials"]
        if self.already:
            parts.append(f"{self.already} from earlier runs")
        parts += [f"{len(self.running)} running"] if self.running else []
        parts += [f"{self.failed} failed", *self.beyond_numbers()]
        parts.append(f"artifacts {self.made} made, {self.reused} reused")
        if self.done + self.already < self.total and (left := self.left) is not None:
            parts.append(f"{clock(left)} left")
        return ", ".join(parts)
