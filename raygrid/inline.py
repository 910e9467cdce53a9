"""The executor without Ray: jobs one after the other in this process, with identical results."""

from __future__ import annotations

import functools
import time

from raygrid.events import Listener
from raygrid.result import Result
from raygrid.schedule import Agenda, Job
from raygrid.work import Worker, commit, versions


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
        fail_artifact(job, f"{type(error).__name__}: {error}", agenda, listener)
        return
    facts = {"seconds": time.perf_counter() - started, "bytes": bundle.nbytes, **bundle.facts}
    listener.artifact(artifact, "made" if made else "reused", facts)
    agenda.finish(job.key)


def fail_artifact(job: Job, error: str, agenda: Agenda, listener: Listener) -> None:
    """An artifact cannot be made: every trial that needs it becomes a failed row."""
    artifact = job.artifact
    assert artifact is not None
    listener.artifact(artifact, "failed", {"error": error})
    why = f"its artifact failed: {artifact.label}: {error}"
    for lost in agenda.fail(job.key):
        if lost.trial is not None:
            listener.trial_finished(lost.trial, lost_result(lost, why))


def lost_result(job: Job, error: str) -> Result:
    """The row of a trial that could not be run to its end."""
    trial = job.trial
    assert trial is not None
    return Result(
        str(trial.spec),
        trial.key,
        status="failed",
        error=error,
        resolved=trial.resolved(),
        epochs_planned=trial.recipe.epochs,
        commit=commit(),
        versions=versions(),
        finished=time.time(),
    )
