"""What becomes of trials whose artifact, or whose worker, was lost: rows that say why."""

from __future__ import annotations

import time

from raygrid.core.errors import DivergedError, told
from raygrid.engine.events import Listener
from raygrid.engine.schedule import Agenda, Job
from raygrid.engine.worker import commit, versions
from raygrid.trials.result import Result, Status


def lost_to(error: Exception) -> tuple[Status, str]:
    """What becomes of the trials that need an artifact whose making raised this, and why.

    One that diverged would do so again: as after a victim's divergence nobody tries.
    """
    if isinstance(error, DivergedError):
        return "diverged", str(error)
    return "failed", told(error)


def fail_artifact(
    job: Job, status: Status, error: str, agenda: Agenda, listener: Listener
) -> list[Job]:
    """An artifact cannot be made: every trial that needs it becomes a row of that status.

    Returns the jobs that are closed with it: those trials, and artifacts in between.
    """
    artifact = job.artifact
    assert artifact is not None
    listener.artifact(artifact, "failed", {"error": error})
    what = "its artifact diverged"
    if status == "failed":
        what = f"its artifact failed: {artifact.label}"
    # Jobs that needed the artifact are closed at any distance: artifacts among them without a
    # word, since each trial behind them gets a row that says what was lost.
    closed = list(agenda.fail(job.key))
    for lost in closed:
        if lost.trial is not None:
            row = lost_result(lost, f"{what}: {error}", status)
            listener.trial_finished(lost.trial, row)
    return closed


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
