"""Runs in MLflow, written in such a way that writing them again is harmless."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from raygrid.core.hashing import key_of
from raygrid.tracking.mlflow.address import (
    SERVERS,
    split_uri,
)
from raygrid.tracking.mlflow.connection import is_gone, mlflow_client
from raygrid.tracking.mlflow.facts import (
    LAYOUT,
    LAYOUT_TAG,
    STATUS,
    TAG_LENGTH,
    Point,
    Shown,
    epoch_points,
    final_metrics,
    grid_tags,
    is_contrastive,
    params_of,
    poison_input,
    shortened,
    strict_json,
    tags_of,
    user,
    written_mark,
)
from raygrid.tracking.mlflow.view import is_ours, view_tags
from raygrid.trials.result import Result

T = TypeVar("T")
log = logging.getLogger(__name__)
EXPERIMENT, TABLES = "raygrid", "raygrid/tables"
DESCRIBED = "raygrid.described"
KEY, WRITTEN, PARENT = "raygrid.key", "raygrid.written", "mlflow.parentRunId"
NOTE, USER, KIND = "mlflow.note.content", "mlflow.user", "mlflow.experimentKind"
COMPARES = {KIND: "custom_model_development", **view_tags()}
"""Tags of an experiment: MLflow opens it on its runs, not on traces of language models."""


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
        self._outdated: dict[str, list[Any]] = {}  # key -> runs of an older layout

    @classmethod
    def of(cls, out: Path, uri: str, experiment: str = EXPERIMENT) -> MlflowExperiment:
        """The experiment of a run folder in the store at `uri`."""
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
            if known is not None:
                self._retag(known.tags)
        return self._id

    def has_lost(self, runs: Iterable[str]) -> bool:
        """Whether the store no longer has the experiment that was found in it, or one of its runs.

        runs: ids.
        """
        if self._id is None:
            return False
        known = self.client.get_experiment_by_name(self.experiment)
        if known is None or known.experiment_id != self._id:
            return True
        return not all(map(self._has, runs))

    def _has(self, run: str) -> bool:
        try:
            self.client.get_run(run)
        except Exception as error:
            if is_gone(error):
                return False
            raise
        return True

    def _retag(self, known: Mapping[str, str]) -> None:
        """Bring the tags of an experiment up to date; what may be a person's choice stays."""
        for tag, text in COMPARES.items():
            outdated = tag in view_tags() and is_ours(known) and known[tag] != text
            if tag not in known or outdated:
                self.client.set_experiment_tag(self._id, tag, text)

    def _create(self) -> str:
        place = self.artifacts / self.experiment if self.artifacts else None
        made: str = self.client.create_experiment(
            self.experiment, place and place.as_uri(), tags=COMPARES
        )
        return made

    def search(self, condition: str = "") -> Iterator[Any]:
        """All runs of the experiment that fulfill `condition`, page by page."""
        token: str | None = None
        while True:
            page = self.client.search_runs([self.id], condition, max_results=1000, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def find(self, key: str) -> Any | None:
        """The run with this key. Of several, left by lost answers, the first one is kept.

        Runs of an older layout do not count; they stay until another one stands for them.
        """
        found = list(self.search(f"tags.`{KEY}` = '{key}'"))
        self._outdated[key] = [run for run in found if is_outdated(run)]
        runs = [run for run in found if not is_outdated(run)]
        runs.sort(key=lambda run: (run.info.start_time, run.info.run_id))
        for ghost in runs[1:]:
            self.client.delete_run(ghost.info.run_id)
        return runs[0] if runs else None

    def open(self, key: str, name: str, tags: Mapping[str, str], start: float) -> str:
        """The id of the run with this key, created if there is none. start: s since 1970."""
        if key not in self._runs:
            run = self.find(key)
            if run is None:
                kept = {k: v for old in self._outdated[key] for k, v in persons_tags(old).items()}
                own = {**kept, USER: user(), KEY: key, LAYOUT_TAG: str(LAYOUT), **tags}
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

    def describe(
        self, run: str, note: str, metrics: Mapping[str, float], tags: Mapping[str, str]
    ) -> None:
        """Give a run its description, findings and their names; a person's description stays."""
        known = self.client.get_run(run).data
        now = int(time.time() * 1000)
        points = [(k, v, now, 0) for k, v in metrics.items() if known.metrics.get(k) != v]
        present = known.tags.get(NOTE)
        if present is None or key_of(present) == known.tags.get(DESCRIBED):
            tags = {**tags, NOTE: note, DESCRIBED: key_of(note)}
        self.write(run, points, tags=tags)

    def table(self, run: str, text: str, name: str) -> None:
        """A table that MLflow shows: JSON with columns and data, in the place of an older one.

        `MlflowClient.log_table` would add its rows to those of the last time.
        """
        self.client.log_text(run, text, name)
        logged = json.dumps([{"path": name, "type": "table"}])
        self.client.set_tag(run, "mlflow.loggedArtifacts", logged)

    def end(self, key: str, status: str, at: float) -> None:
        """Close the run with this key. at: s since 1970."""
        self.client.set_terminated(self._runs[key], status, int(at * 1000))
        self.forget(key)

    def trial(self, parent: str, key: str, spec: str, start: float, name: str = "") -> str:
        """The child run of a trial that is still to finish; returns its id."""
        tags = {PARENT: parent, "raygrid.spec": shortened(spec, TAG_LENGTH)}
        return self.open(key, name or spec, tags, start)

    def finish(self, parent: str, result: Result, shown: Shown | None = None) -> str:
        """Everything that a row holds; the last tag says that nothing is missing. The run's id."""
        shown = shown or Shown(result.spec)
        start = result.finished - result.seconds
        run = self.trial(parent, result.key, result.spec, start, shown.name)
        points = epoch_points(result.history, is_contrastive(result.resolved))
        points += final_metrics(result, shown)
        params = params_of(result.spec, result.resolved)
        # Numbers first: a server may refuse files, and take them again another day.
        self.write(run, points, params, tags_of(result, shown))
        self.end(result.key, STATUS[result.status], result.finished)
        self._keep_files(run, result)
        if shown.picture is not None:
            self.client.log_artifact(run, str(shown.picture))
        self._log_poison(run, result)
        self.write(run, [], {}, {WRITTEN: written_mark(result.finished, shown.control)})
        for old in self._outdated.pop(result.key, []):
            self.client.delete_run(old.info.run_id)
        return run

    def artifact(self, run: str, name: str) -> str:
        """The address of a file of a run, below that of MLflow."""
        return f"#/experiments/{self.id}/runs/{run}/artifacts/{name}"

    def _keep_files(self, run: str, result: Result) -> None:
        """What is too much for parameters and metrics: epochs, all that was resolved, counts."""
        self.client.log_text(run, strict_json(result.history), "history.json")
        self.client.log_text(run, json.dumps(result.resolved, indent=1), "resolved.json")
        counted = {"probes": result.probes, "detection": result.detection}
        if any(counted.values()):
            self.client.log_text(run, strict_json(counted), "counts.json")
        if result.error:
            self.client.log_text(run, result.error, "error.txt")

    def _log_poison(self, run: str, result: Result) -> None:
        """The poison as the run's dataset: trials of one poison have the same digest."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        facts = poison_input(result)
        if facts is not None:
            given = DatasetInput(Dataset(**facts), [InputTag("mlflow.data.context", "training")])
            self.client.log_inputs(run, [given])

    def complete(self) -> dict[str, str]:
        """For each trial's key, the mark of the row that its finished run holds.

        Deletes duplicate runs of a key, which a lost answer or a restored experiment leaves, and
        outdated ones.
        """
        found: dict[str, str] = {}
        outdated = []
        for run in self.search(f"tags.`{PARENT}` != ''"):
            key, written = run.data.tags.get(KEY), run.data.tags.get(WRITTEN, "")
            if is_outdated(run):
                outdated.append(run)
            elif key in found:
                self.client.delete_run(run.info.run_id)
            elif key is not None and written and run.info.status != "RUNNING":
                found[key] = written
        for run in outdated:  # those whose successor was written just before something ended
            if run.data.tags.get(KEY) in found:
                self.client.delete_run(run.info.run_id)
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


def is_outdated(run: Any) -> bool:
    """Whether the run of a trial holds what an older version wrote. Parents are brought over."""
    layout = run.data.tags.get(LAYOUT_TAG, "1")
    return PARENT in run.data.tags and layout.isdecimal() and int(layout) < LAYOUT


def persons_tags(run: Any) -> dict[str, str]:
    """The tags that a person gave a run, its description among them."""
    ours = ("raygrid.", "mlflow.")
    return {k: v for k, v in run.data.tags.items() if k == NOTE or not k.startswith(ours)}


def chunks(items: list[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
