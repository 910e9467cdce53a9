"""What the tests of MLflow share: a small grid, its rows, a run's listeners, a real server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from raygrid.engine.events import Listeners
from raygrid.engine.grid import Grid, Plan, plan
from raygrid.storage.results import ResultLog
from raygrid.tracking.journal import Journal
from raygrid.tracking.mlflow import Tracker, store_uri
from raygrid.tracking.mlflow.client import KEY_TAG, PARENT_TAG, MlflowExperiment
from raygrid.tracking.mlflow.follower import Follower
from raygrid.tracking.mlflow.writer import MlflowWriter
from raygrid.trials.result import Result
from raygrid.trials.trial import Trial

GRID = Grid(
    attacks=("clean", "lsp(patch=4)"),
    defenses=("standard", "grayscale"),
    protocols=("quick(epochs=3)",),
)


FILES = ["counts.json", "history.json", "resolved.json"]
"""Of a trial that was done, in the order in which MLflow lists them."""
LATER = 4e9
"""Seconds since 1970: a row is finished after its trial started."""


def planned() -> Plan:
    return plan(GRID.specs(), None)


def row(
    trial: Trial, status: str = "done", epochs: int = 3, finished: float = LATER + 1000.5
) -> Result:
    """What a trial may leave; the numbers follow from its epoch count."""
    result = Result(str(trial.spec), trial.key, resolved=trial.resolved())
    result.history = [
        {"epoch": e, "train_loss": 1 / e, "test_acc": e / 10} for e in range(1, epochs + 1)
    ]
    result.probes = {"clean_test": {"k": 3.0, "n": 10.0, "acc": 0.3, "loss": 1.5}}
    result.status, result.finished, result.seconds = status, finished, 20.0  # type: ignore[assignment]
    result.device, result.commit, result.versions = "cpu", "abc1234", {"torch": "2.15.0"}
    if status == "failed":
        result.error = "ValueError: no\nTraceback: there\n"
    result.summarize()
    return result


class Tracked(Listeners):
    """The journal of a run and what follows it, as a run has them."""

    def __init__(
        self, out: Path, uri: str | None = None, name: str = "mine", **options: Any
    ) -> None:
        self.tracker = Tracker(out, uri, **options)
        self.out, self.writer = self.tracker.out, self.tracker.writer
        super().__init__(Journal(out, name, every=0.0), self.tracker)

    @property
    def follower(self) -> Follower:
        assert isinstance(self.writer, MlflowWriter)
        return self.writer.follower


def drive(tracker: Tracked, grid: Plan, todo: list[Trial], **row_options: Any) -> None:
    """What an executor does, without the training."""
    tracker.started(grid, todo)
    tell(tracker, todo, **row_options)


def tell(tracker: Tracked, todo: list[Trial], **row_options: Any) -> None:
    """A run that goes on: trials and their rows."""
    for trial in todo:
        tracker.trial_started(trial)
        result = row(trial, **row_options)
        for epoch in result.history:
            tracker.epoch(trial, {**epoch, "peak_acc": 0.0, "peak_epoch": 1.0})
        ResultLog(tracker.out / "results.jsonl").append(result.row())
        tracker.trial_finished(trial, result)


def runs(out: Path, uri: str | None = None, experiment: str = "raygrid") -> list[Any]:
    return list(MlflowExperiment.of(out, store_uri(out, uri), experiment).search())


def children(out: Path, uri: str | None = None) -> dict[str, Any]:
    """Child runs by key; fails if two have the same key or one has no parent."""
    found = [run for run in runs(out, uri) if PARENT_TAG in run.data.tags]
    keys = [run.data.tags[KEY_TAG] for run in found]
    assert len(set(keys)) == len(keys)
    return dict(zip(keys, found, strict=True))


def parents(out: Path, uri: str | None = None) -> list[Any]:
    return [run for run in runs(out, uri) if PARENT_TAG not in run.data.tags]


def content(out: Path, uri: str | None = None) -> dict[str, Any]:
    """All that children say, without the ids and times that MLflow gives by itself."""
    client = MlflowExperiment.of(out, store_uri(out, uri)).client
    said = {}
    for key, run in children(out, uri).items():
        tags = {k: v for k, v in run.data.tags.items() if k.startswith("raygrid.")}
        points = [
            sorted(
                (p.key, p.step, p.timestamp, str(p.value))
                for p in client.get_metric_history(run.info.run_id, m)
            )
            for m in sorted(run.data.metrics)
        ]
        said[key] = (run.info.status, run.info.run_name, run.data.params, tags, points)
    return said


@contextmanager
def server(folder: Path, port: int) -> Iterator[None]:
    """A real MLflow server, killed at the end without warning."""
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder}/server.db"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=env, start_new_session=True)
    try:
        for _ in range(240):
            try:
                with urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                    break
            except OSError:
                assert process.poll() is None, (folder / "server.log").read_text()[-2000:]
                time.sleep(0.5)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
