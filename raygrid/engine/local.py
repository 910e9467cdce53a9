"""The executor without Ray: jobs one after the other in this process, with identical results."""

from __future__ import annotations

import functools
import time

from raygrid.core.device import Meter, release
from raygrid.core.device_errors import trouble
from raygrid.core.errors import DeviceError, Moving
from raygrid.engine.events import Listener
from raygrid.engine.failures import fail_artifact, lost_result, lost_to
from raygrid.engine.schedule import Agenda, Job
from raygrid.engine.worker import Worker
from raygrid.trials.context import Report
from raygrid.trials.result import Result, Status


def run_inline(agenda: Agenda, worker: Worker, listener: Listener) -> None:
    """Do every job of the agenda; a failed artifact makes rows of the trials that need it.

    Raises Moving, with everything saved, if this machine will be taken away.
    """
    listener.ahead(agenda.jobs)
    while (job := agenda.take()) is not None:
        if worker.leaving():
            raise Moving(job.key)
        if job.trial is not None:
            trial = job.trial
            listener.trial_started(trial)
            result, fault = _train(job, worker, functools.partial(listener.epoch, trial))
            listener.trial_finished(trial, result)
            if not fault:
                worker.forget(trial, result)
            agenda.finish(job.key)
            _stop_if_lost(fault, str(result.error))
        else:
            _make(job, agenda, worker, listener)


def _train(job: Job, worker: Worker, report: Report) -> tuple[Result, str]:
    """The row of a trial, and what the device did if that ended it (`trouble`), else nothing."""
    assert job.trial is not None
    try:
        return worker.run(job.trial, report, raise_device=True), ""
    except Exception as error:
        # Not the error itself: its traceback holds all that the trial had on the GPU.
        row, fault = lost_result(job, lost_to(error)[1]), trouble(error) or "other"
    release(worker.device)
    return row, fault


def _stop_if_lost(fault: str | None, why: str) -> None:
    """Raises DeviceError after a fault that leaves this process without its GPU."""
    if fault == "lost":
        raise DeviceError(
            f"this process has lost its GPU ({why.splitlines()[0]}); run the same command again, "
            "it goes on with what is left"
        )


def _make(job: Job, agenda: Agenda, worker: Worker, listener: Listener) -> None:
    artifact = job.artifact
    assert artifact is not None
    listener.artifact(artifact, "making", {})
    started, meter = time.perf_counter(), Meter(worker.device)
    lost: tuple[Status, str] | None = None
    try:
        bundle, made = worker.make(artifact, functools.partial(listener.progress, artifact))
    except Exception as error:
        lost, fault, why = lost_to(error), trouble(error), str(error)
    if lost is not None:
        release(worker.device)
        fail_artifact(job, *lost, agenda, listener)
        _stop_if_lost(fault, why)
        return
    taken = {"memory_mb": meter.memory_mb, "bytes": bundle.nbytes}
    facts = {"seconds": time.perf_counter() - started, **taken, **bundle.facts}
    listener.artifact(artifact, "made" if made else "reused", facts)
    agenda.finish(job.key)
    release(worker.device)
