"""Ray Tune as the executor: a searcher that hands out ready jobs, a callback that books them."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray.tune import Callback
from ray.tune.result import NODE_IP
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from raygrid.events import Listener
from raygrid.inline import fail_artifact, lost_result
from raygrid.packing import Sharing
from raygrid.result import Result
from raygrid.runner.resources import request, share_of
from raygrid.schedule import Agenda, Job

HOUR = 3600.0  # seconds


class ReadyFirst(Searcher):  # type: ignore[misc]
    """Suggests the next ready job; says nothing while all open jobs wait, so nothing is held."""

    def __init__(self, agenda: Agenda, sharing: Sharing) -> None:
        super().__init__(metric="done", mode="max")
        self.agenda = agenda
        self.sharing = sharing

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune saves its searcher for a restore that raygrid never does

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if not len(self.agenda):
            return str(Searcher.FINISHED)
        job = self.agenda.take()
        return None if job is None else config_of(job, self.sharing)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None: ...

    def save(self, checkpoint_path: str) -> None: ...

    def restore(self, checkpoint_path: str) -> None: ...


class LongestFirst(FIFOScheduler):  # type: ignore[misc]
    """Chooses among the trials that wait: the highest rank, and none whose worker is starting.

    Tune's own scheduler gives a free worker to the oldest waiting trial. That is the one for which
    a worker is being started, which Tune then ends: with short jobs the rest of the machine starts
    workers for ever and does no work. Ranks change nothing about which jobs are ready. Among
    equals that one goes first whose artifacts are on the free worker's node.
    """

    def __init__(self, agenda: Agenda, sharing: Sharing) -> None:
        super().__init__()
        self.agenda = agenda
        self.sharing = sharing
        self._outgrown = 0
        self._node: dict[Any, str] = {}
        self._held: dict[str, set[str]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as above

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        inner = tune_controller._tune_controller
        if self._outgrown != self.sharing.outgrown:
            self._outgrown = self.sharing.outgrown
            for trial in list(inner._pending_trials):
                self._enlarge(inner, trial)
            _file_anew(inner)
        waiting = [trial for trial in inner._pending_trials if not _starting(inner, trial)]
        served = [
            trial
            for trial in waiting
            if inner._actor_cache.has_cached_object(trial.placement_group_factory)
        ]
        first = max(map(self._rank, served or waiting), default=0.0)
        equal = [trial for trial in served or waiting if self._rank(trial) == first]
        return max(equal, key=functools.partial(self._at_hand, inner), default=None)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> Any:
        """Note which worker is on which node, and which artifacts have come there."""
        actor = tune_controller._tune_controller._trial_to_actor.get(trial)
        job = self.agenda.jobs.get(trial.config["key"])
        if actor is not None and job is not None and NODE_IP in result:
            self._node[actor] = result[NODE_IP]
            self._held.setdefault(result[NODE_IP], set()).update(job.reads)
        return super().on_trial_result(tune_controller, trial, result)

    def _at_hand(self, inner: Any, trial: Any) -> int:
        """How many of its artifacts are on the node of the worker that a trial would get.

        Only a preference among equals: a placement group that names a node makes workers for that
        node alone, and starting another one takes longer than fetching an artifact.
        """
        free = inner._actor_cache._cached_objects.get(trial.placement_group_factory)
        job = self.agenda.jobs.get(trial.config["key"])
        if len(self._held) < 2 or not free or job is None:
            return 0
        held = self._held.get(self._node.get(free[0], ""), set())
        return sum(key in held for key in job.reads)

    def _rank(self, trial: Any) -> float:
        job = self.agenda.jobs.get(trial.config["key"])
        return job.rank if job is not None else 0.0

    def _enlarge(self, inner: Any, trial: Any) -> None:
        """A trial that waits for a share that has since proved too small waits for a larger one."""
        job = self.agenda.jobs.get(trial.config["key"])
        share = self.sharing.share(job.work) if job is not None else 0.0
        if share > share_of(trial.placement_group_factory):
            _ask_anew(inner, trial, request({"gpu": share}))


def _ask_anew(controller: Any, trial: Any, resources: Any) -> None:
    """Change the resources of a trial that waits, unless a worker is being made ready for it."""
    if _starting(controller, trial) or trial in controller._resetting_trials:
        return
    actor = controller._trial_to_actor.pop(trial, None)
    if actor is not None:
        controller._actor_to_trial.pop(actor)
        controller._remove_actor(actor)
    if trial in controller._staged_trials:
        controller._staged_trials.remove(trial)
        controller._actor_cache.decrease_max(trial.placement_group_factory)
    trial.update_resources(resources)
    controller._pending_trials_list.append(trial)


def _file_anew(controller: Any) -> None:
    """Trials that wait under resources that they no longer ask for wait under their new ones."""
    waiting = controller._resources_to_pending_trials
    moved = [(old, t) for old in waiting for t in waiting[old] if t.placement_group_factory != old]
    for old, trial in moved:
        waiting[old].discard(trial)
        waiting[trial.placement_group_factory].add(trial)


def _starting(controller: Any, trial: Any) -> bool:
    """Whether a worker of its own has been placed for a trial that does not run yet."""
    actor = controller._trial_to_actor.get(trial)
    return actor is not None and controller._actor_manager.is_actor_started(actor)


def config_of(job: Job, sharing: Sharing) -> dict[str, Any]:
    """The job's key, a spec that leads to it, its shards, and its share of a GPU."""
    share = sharing.share(job.work)
    return {"key": job.key, "spec": job.spec, "pieces": job.pieces, "gpu": share}


class Book(Callback):  # type: ignore[misc]
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
        self.users: dict[str, int] = {}
        for job in self.open.values():
            for artifact in job.trial.artifacts if job.trial is not None else ():
                self.users[artifact.key] = self.users.get(artifact.key, 0) + 1

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as above: nothing of it is ever restored

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
        if "row" in result and job.trial is not None:
            self._close(job, Result.from_row(json.loads(result["row"])))
        elif "artifact" in result:
            self._made(job, json.loads(result["artifact"]))
        elif "metrics" in result and job.trial is not None:
            if "taken" in result:  # the first epoch is the probe of its kind
                self.sharing.profiles.learn(job.trial, json.loads(result["taken"]))
            self.listener.epoch(job.trial, json.loads(result["metrics"]))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Tune gave a job up after all its retries."""
        job = self.open.get(trial.config["key"])
        if job is None:
            return
        error = self.reasons.get(job.key) or last_error(trial)
        if job.trial is not None:
            self._close(job, lost_result(job, f"it was given up: {error}"))
        else:
            self._failed(job, error)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Before a retry: a job that ran out of memory gets twice the share of a GPU.

        So do all trials of its kind from now on. One that has all there is gets one try more.
        """
        job = self.open.get(trial.config["key"])
        share = share_of(trial.placement_group_factory)
        memory = "out of memory" in last_error(trial).lower()
        if job is not None:
            why = f"out of memory with {share:g} of a GPU" if memory else "its worker was lost"
            self.listener.retried(job.label, why)
        if memory and 0 < share < 1:
            if job is not None:
                self.sharing.ran_out(job.work, share)
                share = max(share, self.sharing.share(job.work) / 2)
            trial.update_resources(request({"gpu": min(1.0, 2 * share)}))
        elif memory:
            last_try(trial)

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
        if outcome["state"] == "failed":
            self._failed(job, outcome["error"])
            return
        del self.open[job.key]
        assert job.artifact is not None
        self.agenda.finish(job.key)
        self.listener.artifact(job.artifact, outcome.pop("state"), outcome)

    def _failed(self, job: Job, error: str) -> None:
        del self.open[job.key]
        before = set(self.agenda.jobs)
        fail_artifact(job, error, self.agenda, self.listener)
        for key in before - set(self.agenda.jobs):
            self.open.pop(key, None)


class Watchdog(Callback):  # type: ignore[misc]
    """Ends jobs that show no progress: the first time for another try, then for good.

    deadline: seconds without a report; by default ten times the estimate, an hour at least.
    """

    def __init__(self, book: Book, deadline: float | None) -> None:
        self.book = book
        self.deadline = deadline
        self._ended: set[str] = set()
        self._seen: dict[str, tuple[Any, float]] = {}
        self._next = 0.0

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as above

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
            job = self.book.open.get(trial.config["key"])
            if job is not None and now - seen > self._patience(job):
                self._end(trial, now - seen)

    def _patience(self, job: Job) -> float:
        return self.deadline or max(HOUR, 10 * job.seconds)

    def _end(self, trial: Any, silence: float) -> None:
        actor = trial.temporary_state.ray_actor
        if actor is None:
            return
        self._alive(trial)
        key = trial.config["key"]
        if key in self._ended:
            last_try(trial)
            self.book.reasons[key] = f"no progress for {silence:.0f} s, twice"
        self._ended.add(key)
        ray.kill(actor)


def last_try(trial: Any) -> None:
    """Have Tune give a trial up when it fails again."""
    trial.max_failures = min(trial.max_failures, trial.run_metadata.num_failures)


def last_error(trial: Any) -> str:
    """The end of what Tune noted about a trial's last failure; earlier ones stand before it."""
    try:
        return Path(trial.error_file).read_text().rpartition("Failure # ")[2][-2000:]
    except (OSError, TypeError):
        return f"the worker was lost at {time.strftime('%H:%M:%S')}"
