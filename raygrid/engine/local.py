"""The executor without Ray: jobs one after the other in this process, with identical results."""

from __future__ import annotations

import functools
import time

from raygrid.core.errors import DivergedError
from raygrid.engine.events import Listener
from raygrid.engine.schedule import Agenda, Job
from raygrid.engine.worker import Worker, commit, versions
from raygrid.trials.result import Result, Status


def run_inline(agenda: Agenda, worker: Worker, listener: Listener) -> None:
    """Do every job of the agenda; a failed artifact makes rows of the trials that need it."""
    while (job := agenda.take()) is not None:
        if job.trial is not None:
            trial = job.trial
            listener.trial_started(trial)
            result = worker.run(trial, functools.partial(listener.epoch, trial))
            listener.trial_finished(trial, result)
            agenda.finish(job.key)
        else:
            _make(job, agenda, worker, listener)


def _make(job: Job, agenda: Agenda, worker: Worker, listener: Listener) -> None:
    artifact = job.artifact
    assert artifact is not None
    listener.artifact(artifact, "making", {})
    started = time.perf_counter()
    try:
        bundle, made = worker.make(artifact)
    except Exception as error:
        fail_artifact(job, *lost_to(error), agenda, listener)
        return
    facts = {"seconds": time.perf_counter() - started, "bytes": bundle.nbytes, **bundle.facts}
    listener.artifact(artifact, "made" if made else "reused", facts)
    agenda.finish(job.key)


def lost_to(error: Exception) -> tuple[Status, str]:
    """What becomes of the trials that need an artifact whose making raised this, and why.

    One that diverged would do so again: as after a victim's divergence nobody tries.
    """
    if isinstance(error, DivergedError):
        return "diverged", str(error)
    return "failed", f"{type(error).__name__}: {error}"


def fail_artifact(job: Job, status: Status, error: str, agenda: Agenda, listener: Listener) -> None:
    """An artifact cannot be made: every trial that needs it becomes a row of that status."""
    artifact = job.artifact
    assert artifact is not None
    listener.artifact(artifact, "failed", {"error": error})
    what = "its artifact diverged"
    if status == "failed":
        what = f"its artifact failed: {artifact.label}"
    for lost in agenda.fail(job.key):
        if lost.trial is not None:
            row = lost_result(lost, f"{what}: {error}", status)
            listener.trial_finished(lost.trial, row)


def lost_result(job: Job, error: str, status: Status = "failed") -> Result:
    """The row of a trial that could not be run to its end."""
    trial = job.trial
    assert trial is not None
    return Result(
        str(trial.spec),
        trial.key,
        status=status,
        error=error,
        resolved=trial.resolved(),
        epochs_planned=trial.recipe.epochs,
        commit=commit(),
        versions=versions(),
        finished=time.time(),
    )
