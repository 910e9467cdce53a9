"""The executor without Ray: jobs one after the other in this process, with identical results."""

from __future__ import annotations

import functools
import time

from raygrid.engine.events import Listener
from raygrid.engine.failures import fail_artifact, lost_to
from raygrid.engine.schedule import Agenda, Job
from raygrid.engine.worker import Worker


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
