"""The only file with MLflow: runs are written in such a way that writing them again is harmless."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from raygrid.core.errors import TrackingError
from raygrid.tracking.mlflow.address import (
    SERVERS,
    check_health,
    database_path,
    split_uri,
    without_credentials,
)
from raygrid.tracking.mlflow.facts import (
    STATUS,
    TAG_LENGTH,
    Point,
    epoch_points,
    final_metrics,
    grid_tags,
    params_of,
    shortened,
    tags_of,
)
from raygrid.trials.result import History, Result

T = TypeVar("T")
log = logging.getLogger(__name__)
EXPERIMENT, TABLES = "raygrid", "raygrid/tables"
KEY, WRITTEN, PARENT = "raygrid.key", "raygrid.written", "mlflow.parentRunId"
TRANSIENT = {
    "INTERNAL_ERROR",
    "TEMPORARILY_UNAVAILABLE",
    "REQUEST_LIMIT_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    "DEADLINE_EXCEEDED",
}


def check_tracking(uri: str, timeout: float = 5.0) -> None:
    """Raise TrackingError, in one sentence, unless MLflow answers at `uri`.

    A database gets its tables here: do this once before several processes open it.
    """
    parts = split_uri(uri)
    shown = uri.replace(parts.netloc, parts.netloc.rpartition("@")[2])  # no credentials
    if parts.scheme in ("http", "https"):
        check_health(shown.rstrip("/"), timeout)
    try:
        path = database_path(uri)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        mlflow_client(uri).search_experiments(max_results=1)
    except Exception as error:
        raise TrackingError(
            f"MLflow at {shown} cannot be used: {without_credentials(error)}"
        ) from None


def mlflow_client(uri: str) -> Any:
    """A client that gives up at once, because the thread that writes tries again itself.

    A client that repeats requests on its own opens a second run where the first answer was lost.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.tracking import MlflowClient

    # Its notes on tables and its tracebacks are no news: faults are told in one line here.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    return MlflowClient(tracking_uri=uri)


def is_transient(error: Exception) -> bool:
    """Whether the same request may succeed later."""
    code = getattr(error, "error_code", None)
    return isinstance(error, OSError) if code is None else code in TRANSIENT


class MlflowExperiment:
    """One experiment of an MLflow store. Every method may be repeated; errors are MLflow's own.

    client: an MlflowClient. artifacts: where a database keeps files; a server decides itself.
    """

    def __init__(self, client: Any, experiment: str, artifacts: Path | None) -> None:
        self.client = client
        self.experiment = experiment
        self.artifacts = artifacts
        self._id: str | None = None
        self._runs: dict[str, str] = {}
        self._params: dict[str, set[str]] = {}

    @classmethod
    def of(cls, out: Path, uri: str, experiment: str = EXPERIMENT) -> MlflowExperiment:
        """The projection of a run folder on the store at `uri`."""
        local = split_uri(uri).scheme not in SERVERS
        return cls(
            mlflow_client(uri), experiment, out.absolute() / "mlartifacts" if local else None
        )

    @property
    def id(self) -> str:
        """The experiment's id; it is created on first use."""
        if self._id is None:
            known = self.client.get_experiment_by_name(self.experiment)
            if known is not None and known.lifecycle_stage == "deleted":
                self.client.restore_experiment(known.experiment_id)
            self._id = known.experiment_id if known is not None else self._create()
        return self._id

    def _create(self) -> str:
        place = self.artifacts / self.experiment if self.artifacts else None
        made: str = self.client.create_experiment(self.experiment, place and place.as_uri())
        return made

    def search(self, condition: str = "") -> Iterator[Any]:
        """All runs of the experiment that fulfil `condition`, page by page."""
        token: str | None = None
        while True:
            page = self.client.search_runs([self.id], condition, max_results=1000, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def find(self, key: str) -> Any | None:
        """The run with this key. Of several, left by lost answers, the first one is kept."""
        runs = list(self.search(f"tags.`{KEY}` = '{key}'"))
        runs.sort(key=lambda run: (run.info.start_time, run.info.run_id))
        for ghost in runs[1:]:
            self.client.delete_run(ghost.info.run_id)
        return runs[0] if runs else None

    def open(self, key: str, name: str, tags: Mapping[str, str], start: float) -> str:
        """The id of the run with this key, created if there is none. start: s since 1970."""
        if key not in self._runs:
            run = self.find(key)
            if run is None:
                own = {KEY: key, **tags}
                run = self.client.create_run(self.id, int(start * 1000), own, shortened(name, 500))
            else:
                self._reopen(run, tags)
            self._runs[key] = run.info.run_id
            self._params[run.info.run_id] = set(run.data.params)
        return self._runs[key]

    def _reopen(self, run: Any, tags: Mapping[str, str]) -> None:
        """Take a run up again; it moves to the grid that works on it now."""
        if run.info.status != "RUNNING":
            self.client.update_run(run.info.run_id, status="RUNNING")
        if not tags.items() <= run.data.tags.items():
            self.write(run.info.run_id, tags=tags)

    def forget(self, key: str) -> None:
        """Look the run up again next time (somebody may have deleted it)."""
        self._params.pop(self._runs.pop(key, ""), None)

    def write(
        self,
        run: str,
        metrics: Sequence[Point] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Metrics, parameters and tags in as few requests as MLflow's limits allow, tags last.

        A parameter that the run has is left as it is: MLflow refuses to change one.
        """
        from mlflow.entities import Metric, Param, RunTag

        known = self._params.setdefault(run, set())
        new = {name: value for name, value in (params or {}).items() if name not in known}
        kinds: tuple[list[list[Any]], ...] = (
            list(chunks([Metric(*point) for point in metrics], 800)),
            list(chunks([Param(*param) for param in new.items()], 100)),
            list(chunks([RunTag(*tag) for tag in (tags or {}).items()], 100)),
        )
        count = max(map(len, kinds))
        requests = zip(*([[]] * (count - len(parts)) + parts for parts in kinds), strict=True)
        for some_metrics, some_params, some_tags in requests:
            self.client.log_batch(run, some_metrics, some_params, some_tags)
            known |= {param.key for param in some_params}

    def grid(self, key: str, name: str, specs: Iterable[str]) -> str:
        """The parent run of a grid with its axes; returns its id."""
        run = self.open(key, name, {}, time.time())
        self.write(run, tags=grid_tags(specs))
        return run

    def end(self, key: str, status: str, at: float) -> None:
        """Close the run with this key. at: s since 1970."""
        self.client.set_terminated(self._runs[key], status, int(at * 1000))
        self.forget(key)

    def trial(self, parent: str, key: str, spec: str, start: float) -> str:
        """The child run of a trial that is still to finish; returns its id."""
        tags = {PARENT: parent, "raygrid.spec": shortened(spec, TAG_LENGTH)}
        return self.open(key, spec, tags, start)

    def finish(self, parent: str, result: Result) -> None:
        """Everything that a row holds; the last tag says that nothing is missing."""
        run = self.trial(parent, result.key, result.spec, result.finished - result.seconds)
        self.client.log_text(run, _json(result.history), "history.json")
        if result.error:
            self.client.log_text(run, result.error, "error.txt")
        points = [*epoch_points(result.history), *final_metrics(result)]
        tags = {**tags_of(result), WRITTEN: str(result.finished)}
        self.write(run, points, params_of(result.spec, result.resolved), tags)
        self.end(result.key, STATUS[result.status], result.finished)

    def complete(self) -> dict[str, str]:
        """When the row was finished that each finished run of a trial holds, by the trial's key.

        Of several runs of one key, which a lost answer or a restored experiment leaves, one stays.
        """
        found: dict[str, str] = {}
        for run in self.search(f"tags.`{PARENT}` != ''"):
            key, written = run.data.tags.get(KEY), run.data.tags.get(WRITTEN, "")
            if key in found:
                self.client.delete_run(run.info.run_id)
            elif key is not None and written and run.info.status != "RUNNING":
                found[key] = written
        return found

    def parent_of(self, keys: Iterable[str]) -> str:
        """The parent of the first run that has one of these keys; empty if there is none."""
        wanted = set(keys)
        for run in self.search(f"tags.`{PARENT}` != ''"):
            if run.data.tags.get(KEY) in wanted:
                return str(run.data.tags[PARENT])
        return ""

    def close(self, run: str, status: str, at: float) -> None:
        """Close a run by its id. at: s since 1970."""
        self.client.set_terminated(run, status, int(at * 1000))

    def kill_orphans(self, parent: str) -> None:
        """End the children that a killed driver left running."""
        for run in self.search(f"tags.`{PARENT}` = '{parent}' AND attributes.status = 'RUNNING'"):
            self.client.set_terminated(run.info.run_id, "KILLED")


def _json(history: History) -> str:
    """Strict JSON: what is not finite becomes null."""
    finite = [{k: v if math.isfinite(v) else None for k, v in e.items()} for e in history]
    return json.dumps(finite, indent=1)


def chunks(items: list[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
