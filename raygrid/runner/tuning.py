"""Ray Tune as the executor: a searcher that hands out ready jobs, a callback that books them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.search import Searcher

from raygrid.events import Listener
from raygrid.inline import fail_artifact, lost_result
from raygrid.result import Result
from raygrid.runner.resources import doubled, share_of
from raygrid.schedule import Agenda, Job


class ReadyFirst(Searcher):  # type: ignore[misc]
    """Suggests the next ready job; says nothing while all open jobs wait, so nothing is held."""

    def __init__(self, agenda: Agenda, gpus: bool) -> None:
        super().__init__(metric="done", mode="max")
        self.agenda = agenda
        self.gpus = gpus

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune saves its searcher for a restore that raygrid never does

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if not len(self.agenda):
            return str(Searcher.FINISHED)
        job = self.agenda.take()
        return None if job is None else config_of(job, self.gpus)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None: ...

    def save(self, checkpoint_path: str) -> None: ...

    def restore(self, checkpoint_path: str) -> None: ...


def config_of(job: Job, gpus: bool) -> dict[str, Any]:
    """The job's key, a spec that leads to it, its shards, and its share of a GPU."""
    share = share_of(job) if gpus else 0.0
    return {"key": job.key, "spec": job.spec, "pieces": job.pieces, "gpu": share}


class Book(Callback):  # type: ignore[misc]
    """Turns Tune's events into rows, listener events and agenda entries."""

    def __init__(
        self, agenda: Agenda, listener: Listener, release: Callable[[list[str]], None]
    ) -> None:
        self.agenda = agenda
        self.listener = listener
        self.release = release
        self.open = dict(agenda.jobs)
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
        if "row" in result and job.trial is not None:
            self._close(job, Result.from_row(json.loads(result["row"])))
        elif "artifact" in result:
            self._made(job, json.loads(result["artifact"]))
        elif "metrics" in result and job.trial is not None:
            self.listener.epoch(job.trial, json.loads(result["metrics"]))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Tune gave a job up after all its retries."""
        job = self.open.get(trial.config["key"])
        if job is None:
            return
        error = last_error(trial)
        if job.trial is not None:
            result = lost_result(job, "its worker", error)
            self._close(job, result)
        else:
            self._failed(job, error)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Before a retry: a job that ran out of GPU memory gets twice the share."""
        if "out of memory" in last_error(trial).lower():
            larger = doubled(trial.placement_group_factory)
            if larger is not None:
                trial.update_resources(larger)

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


def last_error(trial: Any) -> str:
    """The end of what Tune noted about a trial's failure."""
    try:
        return Path(trial.error_file).read_text()[-2000:]
    except (OSError, TypeError):
        return f"the worker was lost at {time.strftime('%H:%M:%S')}"
