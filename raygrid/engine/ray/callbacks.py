"""What Ray Tune tells of its trials: a callback that books it, one that ends silent jobs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray.tune import Callback

from raygrid.core.device_errors import OUT_OF_MEMORY
from raygrid.core.errors import ClusterError
from raygrid.core.local_gpus import NO_UTILIZATION
from raygrid.engine.costs.gpu_share import Sharing
from raygrid.engine.events import Listener
from raygrid.engine.failures import fail_artifact, lost_result
from raygrid.engine.ray.private import last_try, own_node_lives, worker_of
from raygrid.engine.ray.resources import more_cpus, request, share_of
from raygrid.engine.schedule import Agenda, Job
from raygrid.trials.result import Result, Status
from raygrid.trials.trial import Trial

HOUR = 3600.0  # seconds
RAISED_LINE = re.compile(r"^(?:\w+\.)*([A-Z]\w*: .+)$", re.MULTILINE)
"""The line of a traceback that says what was raised, without its module."""


class AgendaCallback(Callback):  # type: ignore[misc]
    """Turns Tune's events into rows, listener events and agenda entries."""

    def __init__(
        self,
        agenda: Agenda,
        listener: Listener,
        sharing: Sharing,
        release: Callable[[list[str]], None],
    ) -> None:
        self.agenda = agenda
        self.listener = listener
        self.sharing = sharing
        self.release = release
        self.open = dict(agenda.jobs)
        self.reasons: dict[str, str] = {}
        self.faults: dict[str, str] = {}  # of GPUs that failed, until the job is tried again
        self.faulty: set[str] = set()
        self.uncounted = False
        self.users: dict[str, int] = {}
        for job in self.open.values():
            for artifact in job.trial.artifacts if job.trial is not None else ():
                self.users[artifact.key] = self.users.get(artifact.key, 0) + 1

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune saves its callbacks for a restore that raygrid never does

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        job = self.open.get(trial.config["key"])
        if job is None:
            return
        if job.trial is not None:
            self.listener.trial_started(job.trial)
        elif job.artifact is not None:
            self.listener.artifact(job.artifact, "making", {})

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        job = self.open.get(trial.config["key"])
        if job is None:
            return
        if "where" in result:
            self.listener.placed(job.key, result["where"])
        if "lost" in result:
            self._device_lost(job, trial, result["lost"])
        if "row" in result and job.trial is not None:
            self._close(job, Result.from_row(json.loads(result["row"])))
        elif "artifact" in result:
            self._made(job, json.loads(result["artifact"]))
        elif "metrics" in result:
            self._reached(job, json.loads(result["metrics"]), result.get("taken"))

    def _reached(self, job: Job, metrics: dict[str, float], taken: str | None) -> None:
        """A trial ended an epoch, or a part of an artifact is made."""
        if job.artifact is not None:
            units = (int(metrics[name]) for name in ("done", "total", "before"))
            self.listener.progress(job.artifact, *units)
        elif job.trial is not None:
            if taken is not None:  # what no measurement knew, the first epoch tells
                self._learn(job.trial, json.loads(taken))
            self.listener.epoch(job.trial, metrics)

    def _learn(self, trial: Trial, taken: dict[str, Any]) -> None:
        """What a trial takes of its GPU; once, that nobody counts how busy the GPUs are."""
        self.sharing.profiles.learn(trial, taken)
        if taken["utilization"] is None and not self.uncounted:
            self.uncounted = True
            self.listener.note(NO_UTILIZATION)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Tune gave a job up after all its retries."""
        job = self.open.get(trial.config["key"])
        if job is None:
            return
        error = self.reasons.get(job.key) or last_error(trial)
        if OUT_OF_MEMORY in error.lower():  # Ray's own words fill a page before they say so
            error = f"out of memory, with all that there is\n{error}"
        if job.trial is not None:
            self._close(job, lost_result(job, f"it was given up: {error}"))
        else:
            self._failed(job, error)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Before a retry: a job that ran out of memory gets twice the share of a GPU.

        So do all trials of its kind from now on. One without a GPU, which Ray ends where a node's
        memory is used up, gets twice the CPUs, so that fewer run beside it. One that has all there
        is gets one try more. One whose GPU failed is tried on a whole one.
        """
        job = self.open.get(trial.config["key"])
        share = share_of(trial.placement_group_factory)
        fault = self.faults.pop(trial.config["key"], None)
        memory = fault is None and OUT_OF_MEMORY in last_error(trial).lower()
        cpus = more_cpus(trial.placement_group_factory) if memory and not share else None
        if job is not None:
            self.listener.retried(job.label, _why_again(fault, memory, share, cpus))
            if memory and 0 < share < 1:
                self.sharing.ran_out(job.work, share)
                share = max(share, self.sharing.share(job.work) / 2)
        if fault and share:  # alone: under MPS the fault of a neighbor is everybody's
            trial.update_resources(request({"gpu": 1.0}))
        elif memory and 0 < share < 1:
            trial.update_resources(request({"gpu": min(1.0, 2 * share)}))
        elif cpus is not None:
            trial.update_resources(request({"gpu": 0.0, "cpu": cpus}))
            self.sharing.outgrown += 1  # has the scheduler file it under what it asks for now
        elif memory:
            last_try(trial)

    def _device_lost(self, job: Job, trial: Any, why: str) -> None:
        """A worker says that its GPU failed and ends: the job is tried once more, then given up."""
        if job.key in self.faulty:
            last_try(trial)
            self.reasons[job.key] = f"its GPU failed twice: {why}"
        self.faulty.add(job.key)
        self.faults[job.key] = why

    def _close(self, job: Job, result: Result) -> None:
        assert job.trial is not None
        del self.open[job.key]
        self.agenda.finish(job.key)
        self.listener.trial_finished(job.trial, result)
        self._release(job)

    def _release(self, job: Job) -> None:
        assert job.trial is not None
        free = []
        for artifact in job.trial.artifacts:
            self.users[artifact.key] -= 1
            if self.users[artifact.key] == 0:
                free.append(artifact.key)
        if free:
            self.release(free)

    def _made(self, job: Job, outcome: dict[str, Any]) -> None:
        if outcome["state"] in ("failed", "diverged"):
            self._failed(job, outcome["error"], outcome["state"])
            return
        del self.open[job.key]
        assert job.artifact is not None
        self.agenda.finish(job.key)
        self.listener.artifact(job.artifact, outcome.pop("state"), outcome)

    def _failed(self, job: Job, error: str, status: Status = "failed") -> None:
        del self.open[job.key]
        for lost in fail_artifact(job, status, error, self.agenda, self.listener):
            self.open.pop(lost.key, None)
            if lost.trial is not None:
                self._release(lost)


def _why_again(fault: str | None, memory: bool, share: float, cpus: float | None) -> str:
    """Why a job is tried again, and what is done about it.

    fault: of its GPU. memory: whether it ran out of it. share: of a GPU that it had; without one,
    cpus are those that it gets now, None where a node has no more.
    """
    if fault:
        return f"its GPU failed: {fault}"
    if not memory:
        return "its worker was lost"
    if share:
        return f"out of memory with {share:g} of a GPU"
    why = "the machine ran out of memory"
    return f"{why}; with {cpus:g} CPUs fewer run beside it" if cpus else why


class NodeWatch(Callback):  # type: ignore[misc]
    """Stops a grid whose Ray, started here, has lost its only node: nothing brings that back."""

    def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:
        if not own_node_lives():
            raise ClusterError(
                "Ray's node on this machine has ended, killed perhaps for want of memory; what is "
                "finished is kept, run the same command again"
            )


class Watchdog(Callback):  # type: ignore[misc]
    """Ends jobs that show no progress: the first time for another try, then for good.

    deadline: seconds without a report; by default ten times the estimate, an hour at least.
    """

    def __init__(self, agenda_callback: AgendaCallback, deadline: float | None) -> None:
        self.agenda_callback = agenda_callback
        self.deadline = deadline
        self._ended: set[str] = set()
        self._seen: dict[str, tuple[Any, float]] = {}
        self._next = 0.0

    def __getstate__(self) -> dict[str, Any]:
        return {}  # saved by Tune, never restored

    def _alive(self, trial: Any) -> None:
        self._seen[trial.trial_id] = trial, time.monotonic()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._alive(trial)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        self._alive(trial)

    def _over(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._seen.pop(trial.trial_id, None)

    on_trial_complete = on_trial_error = on_trial_recover = _over

    def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + 1.0
        for trial, seen in list(self._seen.values()):
            job = self.agenda_callback.open.get(trial.config["key"])
            if job is not None and now - seen > self._patience(job):
                self._end(trial, now - seen)

    def _patience(self, job: Job) -> float:
        return self.deadline or max(HOUR, 10 * job.seconds)

    def _end(self, trial: Any, silence: float) -> None:
        # A killed worker is what Tune takes for a lost one: it tries again, up to `max_failures`.
        actor = worker_of(trial)
        if actor is None:
            return
        self._alive(trial)
        key = trial.config["key"]
        if key in self._ended:
            last_try(trial)
            self.agenda_callback.reasons[key] = f"no progress for {silence:.0f} s, twice"
        self._ended.add(key)
        ray.kill(actor)


def last_error(trial: Any) -> str:
    """The last failure that Tune noted of a trial: what was raised, then the end of where."""
    try:
        whole = Path(trial.error_file).read_text(encoding="utf-8")
    except (OSError, TypeError):
        return f"the worker was lost at {time.strftime('%H:%M:%S')}"
    trace = whole.rpartition("Failure # ")[2].partition("\n")[2].rstrip()[-2000:]
    raised = RAISED_LINE.findall(trace)  # of a worker that was lost: nothing
    return f"{raised[-1]}\n{trace}" if raised else trace
