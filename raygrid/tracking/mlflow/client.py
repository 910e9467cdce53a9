"""Runs in MLflow, written in such a way that writing them again is harmless."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from raygrid.tracking.mlflow.address import (
    SERVER_SCHEMES,
    split_uri,
)
from raygrid.tracking.mlflow.connection import is_gone, mlflow_client
from raygrid.tracking.mlflow.facts import (
    LAYOUT_TAG,
    RUN_LAYOUT,
    Point,
    shortened,
    user,
)
from raygrid.tracking.mlflow.view import is_ours, view_tags

T = TypeVar("T")
log = logging.getLogger(__name__)
EXPERIMENT_NAME, TABLES_EXPERIMENT = "raygrid", "raygrid/tables"
KEY_TAG, PARENT_TAG = "raygrid.key", "mlflow.parentRunId"
NOTE_TAG, USER_TAG, KIND_TAG = "mlflow.note.content", "mlflow.user", "mlflow.experimentKind"
EXPERIMENT_TAGS = {KIND_TAG: "custom_model_development", **view_tags()}
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
    def of(cls, out: Path, uri: str, experiment: str = EXPERIMENT_NAME) -> Self:
        """The experiment of a run folder in the store at `uri`."""
        local = split_uri(uri).scheme not in SERVER_SCHEMES
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
        for tag, text in EXPERIMENT_TAGS.items():
            outdated = tag in view_tags() and is_ours(known) and known[tag] != text
            if tag not in known or outdated:
                self.client.set_experiment_tag(self._id, tag, text)

    def _create(self) -> str:
        place = self.artifacts / self.experiment if self.artifacts else None
        made: str = self.client.create_experiment(
            self.experiment, place and place.as_uri(), tags=EXPERIMENT_TAGS
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

    def keep_first(self, key: str) -> Any | None:
        """The run with this key. Of several, left by lost answers, all but the first are deleted.

        Runs of an older layout do not count; they stay until another one stands for them.
        """
        found = list(self.search(f"tags.`{KEY_TAG}` = '{key}'"))
        self._outdated[key] = [run for run in found if is_outdated(run)]
        runs = [run for run in found if not is_outdated(run)]
        runs.sort(key=lambda run: (run.info.start_time, run.info.run_id))
        for ghost in runs[1:]:
            self.client.delete_run(ghost.info.run_id)
        return runs[0] if runs else None

    def open(self, key: str, name: str, tags: Mapping[str, str], start: float) -> str:
        """The id of the run with this key, created if there is none. start: s since 1970."""
        if key not in self._runs:
            run = self.keep_first(key)
            if run is None:
                kept = {k: v for old in self._outdated[key] for k, v in persons_tags(old).items()}
                own = {**kept, USER_TAG: user(), KEY_TAG: key, LAYOUT_TAG: str(RUN_LAYOUT), **tags}
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

    def end(self, key: str, status: str, at: float) -> None:
        """Close the run with this key. at: s since 1970."""
        self.client.set_terminated(self._runs[key], status, int(at * 1000))
        self.forget(key)

    def close(self, run: str, status: str, at: float) -> None:
        """Close a run by its id. at: s since 1970."""
        self.client.set_terminated(run, status, int(at * 1000))


def is_outdated(run: Any) -> bool:
    """Whether the run of a trial holds what an older version wrote. Parents are brought over."""
    layout = run.data.tags.get(LAYOUT_TAG, "1")
    return PARENT_TAG in run.data.tags and layout.isdecimal() and int(layout) < RUN_LAYOUT


def persons_tags(run: Any) -> dict[str, str]:
    """The tags that a person gave a run, its description among them."""
    ours = ("raygrid.", "mlflow.")
    return {k: v for k, v in run.data.tags.items() if k == NOTE_TAG or not k.startswith(ours)}


def chunks(items: list[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
