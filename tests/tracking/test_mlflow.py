"""MLflow holds what the results hold, once, whatever happens to the server in between."""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pandas as pd
import pytest

from raygrid.core.errors import TrackingError
from raygrid.engine.events import Listeners
from raygrid.engine.grid import Grid, Plan, plan
from raygrid.reports.tables.write import write_tables
from raygrid.storage.results import ResultLog
from raygrid.tracking.journal import Journal, picture_of
from raygrid.tracking.mlflow import Tracker, check_tracking, store_uri, sync
from raygrid.tracking.mlflow import follower as follower_module
from raygrid.tracking.mlflow import pictures as pictures_module
from raygrid.tracking.mlflow import writer as writer_module
from raygrid.tracking.mlflow.address import database_path, without_credentials
from raygrid.tracking.mlflow.client import KEY, PARENT, TABLES, WRITTEN, MlflowExperiment
from raygrid.tracking.mlflow.description import description, findings
from raygrid.tracking.mlflow.facts import (
    Shown,
    epoch_points,
    final_metrics,
    params_of,
    safe_name,
    shortened,
    tags_of,
)
from raygrid.tracking.mlflow.follower import Follower
from raygrid.tracking.mlflow.process import WriterProcess
from raygrid.tracking.mlflow.sync import Synced
from raygrid.tracking.mlflow.tables import Mirror
from raygrid.tracking.mlflow.view import view_tags
from raygrid.tracking.mlflow.writer import MlflowWriter
from raygrid.tracking.names import names_of
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


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with its tables; making them takes seconds, copying them nothing."""
    folder = tmp_path_factory.mktemp("mlflow")
    check_tracking(store_uri(folder))
    return folder / "mlflow.db"


@pytest.fixture
def out(tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run, its name with a space, its database ready."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "my runs"
    folder.mkdir()
    (folder / "mlflow.db").write_bytes(template.read_bytes())
    return folder


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
    found = [run for run in runs(out, uri) if PARENT in run.data.tags]
    keys = [run.data.tags[KEY] for run in found]
    assert len(set(keys)) == len(keys)
    return dict(zip(keys, found, strict=True))


def parents(out: Path, uri: str | None = None) -> list[Any]:
    return [run for run in runs(out, uri) if PARENT not in run.data.tags]


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


def test_a_grid_is_one_parent_with_a_child_a_trial(out: Path) -> None:
    grid = planned()
    table = out / "table.md"
    table.write_text("| a |")
    tracker = Tracked(out, name="first", every=0.05)
    drive(tracker, grid, grid.trials)
    tracker.tables([table])
    tracker.close(interrupted=False)

    (parent,) = parents(out)
    assert parent.info.run_name == "first"
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["raygrid.axis.attack"] == "clean, lsp(patch=4)"
    assert parent.data.tags["raygrid.axis.defense"] == "standard, grayscale"
    assert parent.data.tags["raygrid.trials"] == "4"
    client = MlflowExperiment.of(out, store_uri(out)).client
    assert [f.path for f in client.list_artifacts(parent.info.run_id, "tables")] == [
        "tables/table.md"
    ]

    found = children(out)
    assert set(found) == set(grid.by_key())
    trial = next(t for t in grid.trials if str(t.spec).startswith("photo_digits/lsp(patch=4)/gray"))
    child = found[trial.key]
    assert child.info.status == "FINISHED"
    assert child.info.run_name == "lsp · grayscale"
    assert child.data.tags["raygrid.spec"] == str(trial.spec)
    assert child.data.tags[PARENT] == parent.info.run_id
    assert child.data.tags["raygrid.commit"] == "abc1234"
    assert child.data.tags["raygrid.version.torch"] == "2.15.0"
    assert child.data.tags["mlflow.source.git.commit"] == "abc1234"
    assert child.data.tags["mlflow.user"]
    assert child.data.params == {
        "attack": "lsp",
        "attack_params": "patch=4",
        "budget": "1.3041323727577427",
        "budget_norm": "l2",
        "poison_ratio": "1.0",
        "defense": "grayscale",
        "architecture": "small_cnn",
        "learner": "supervised",
        "dataset": "photo_digits",
        "protocol": "quick(epochs=3)",
        "seed": "0",
    }
    summary = {k: v for k, v in child.data.metrics.items() if "/" not in k}
    assert summary == {"final_acc": 0.3, "peak_acc": 0.3, "drop_vs_clean": 0.0, "seconds": 20.0}
    assert "probe/clean_test/n" not in child.data.metrics
    history = client.get_metric_history(child.info.run_id, "epoch/test_acc")
    assert sorted((p.step, p.value) for p in history) == [(1, 0.1), (2, 0.2), (3, 0.3)]
    files = out / "mlartifacts"
    stored = json.loads(next(files.rglob(f"{child.info.run_id}/**/history.json")).read_text())
    assert [epoch["test_acc"] for epoch in stored] == [0.1, 0.2, 0.3]
    resolved = json.loads(next(files.rglob(f"{child.info.run_id}/**/resolved.json")).read_text())
    assert resolved["recipe"]["epochs"] == 3
    counts = json.loads(next(files.rglob(f"{child.info.run_id}/**/counts.json")).read_text())
    assert counts["probes"]["clean_test"]["n"] == 10
    experiment = client.get_experiment_by_name("raygrid")
    assert experiment.experiment_id == "1", "the link that the command line prints"
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    view = json.loads(experiment.tags["mlflow.sharedViewState.raygrid"])
    state = json.loads(view["state"])
    kinds = {"params": child.data.params, "metrics": {**child.data.metrics, "published_acc": 0}}
    for column in (*state["selectedColumns"], state["orderByKey"]):
        kind, _, name = column.partition(".")
        assert name.strip("`") in kinds[kind]
    listed = client.search_runs([experiment.experiment_id], state["searchFilter"])
    assert {run.data.tags[KEY] for run in listed} == set(grid.by_key())


def test_every_status_ends_its_run(out: Path) -> None:
    grid = planned()
    tracker = Tracked(out, every=0.05)
    tracker.started(grid, grid.trials)
    for trial, status in zip(grid.trials, ("done", "failed", "diverged"), strict=False):
        ResultLog(out / "results.jsonl").append(row(trial, status).row())
    lost = grid.trials[3]
    tracker.trial_started(lost)
    tracker.epoch(lost, {"epoch": 1.0, "test_acc": 0.5})
    tracker.close(interrupted=True)
    found = children(out)
    ends = [found[trial.key].info.status for trial in grid.trials]
    assert ends == ["FINISHED", "FAILED", "FAILED", "KILLED"]
    assert found[lost.key].data.metrics["epoch/test_acc"] == 0.5
    assert parents(out)[0].info.status == "KILLED"
    failed = found[grid.trials[1].key]
    assert failed.data.tags["raygrid.error"] == "ValueError: no"
    error = next((out / "mlartifacts").rglob(f"{failed.info.run_id}/**/error.txt"))
    assert error.read_text() == "ValueError: no\nTraceback: there\n"


def test_names_say_what_varies_in_the_grid() -> None:
    where = "photo_digits/{}/{}/small_cnn/supervised/quick/{}"
    strong = "em(budget=16/255)"
    specs = [where.format(a, d, s) for a in ("em", strong) for d in ("none", "jpeg") for s in "01"]
    names = names_of([*specs, where.format("clean", "none", 0), "of another version"])
    assert names[where.format(strong, "jpeg", 1)] == "em 16/255 · jpeg · s1"
    assert names[where.format("em", "none", 0)] == "em · none · s0"
    assert names[where.format("clean", "none", 0)] == "clean · none · s0"
    assert names["of another version"] == "of another version"
    assert len(set(names.values())) == len(names)
    assert list(names_of(specs[:1]).values()) == ["em"]
    ratios = [where.format(f"em@{r}", "none", 0) for r in (0.2, 0.55)]
    assert list(names_of(ratios).values()) == ["em · 20 %", "em · 55 %"]


def test_parameters_are_the_axes_with_the_budget_as_a_number() -> None:
    spec = "photo_digits/{}/none/small_cnn/supervised/quick/7"
    made = params_of(
        spec.format("em(step=0.2, budget=16/255)@0.2"), {"attack": {"budget": "16/255"}}
    )
    assert float(made["budget"]) == 16 / 255
    assert (made["budget_norm"], made["attack"], made["attack_params"]) == (
        "linf",
        "em",
        "step=0.2",
    )
    assert (made["poison_ratio"], made["seed"]) == ("0.2", "7")
    clean = params_of(spec.format("clean"), {"attack": {"id": "clean"}})
    assert (clean["budget"], clean["poison_ratio"], clean["attack_params"]) == (
        "0.0",
        "0.0",
        "default",
    )
    assert "budget" not in params_of(spec.format("folder"), {"attack": {"id": "folder"}})


def test_knn_and_probe_never_go_by_one_name() -> None:
    result = row(planned().trials[0])
    result.resolved = {"probing": {"passes": 0}}
    result.peak_acc = None
    result.knn_peak, result.probe_peak, result.probe_final = 0.4, 0.6, 0.5
    older = row(planned().trials[0])  # its peak was one of kNN
    older.resolved = result.resolved
    points = {name: value for name, value, *_ in final_metrics(result)}
    assert (points["knn_peak"], points["probe_peak"], points["probe_final"]) == (0.4, 0.6, 0.5)
    assert "peak_acc" not in points
    points = {name: value for name, value, *_ in final_metrics(older)}
    assert points["knn_peak"] == older.peak_acc
    assert "peak_acc" not in points
    assert {name for name, *_ in epoch_points(result.history, knn=True)} == {
        "epoch/train_loss",
        "epoch/knn_acc",
    }


def test_a_published_number_stands_beside_the_measured_one(out: Path) -> None:
    grid = plan(["cifar10/em/jpeg(quality=10)/resnet18/supervised/apbench/0"], None)
    tracker = Tracked(out, every=0.01)
    drive(tracker, grid, grid.trials)
    tracker.close(interrupted=False)
    (child,) = children(out).values()
    assert child.data.metrics["published_acc"] == 0.8072  # APBench, table 3
    assert child.data.metrics["minus_published"] == pytest.approx(0.3 - 0.8072)
    assert child.data.tags["raygrid.published"].startswith("apbench T3")
    (out / "grids.jsonl").unlink()  # without what the driver looked up
    assert sync(out).written == 0
    other = f"sqlite:///{out}/other.db"
    assert sync(out, other).written == 1
    (again,) = children(out, other).values()
    assert again.data.metrics["published_acc"] == 0.8072


def test_a_control_that_comes_later_gives_the_drop(out: Path) -> None:
    grid = planned()
    clean, poisoned = (
        next(t for t in grid.trials if str(t.spec).startswith(f"photo_digits/{name}/standard"))
        for name in ("clean", "lsp(patch=4)")
    )
    log = ResultLog(out / "results.jsonl")
    log.append(row(poisoned).row())
    follower = Follower(out, store_uri(out))

    def drop() -> float | None:
        follower.read()
        follower.write()
        found: float | None = children(out)[poisoned.key].data.metrics.get("drop_vs_clean")
        return found

    assert drop() is None
    for accuracy, later in ((0.9, 50.0), (0.5, 90.0)):
        control = row(clean, finished=LATER + 2000.0 + later)
        control.final_acc = accuracy
        log.append(control.row())
        assert drop() == pytest.approx(accuracy - 0.3)
    assert follower.written == 5
    assert sync(out).written == 0
    assert "drop_vs_clean" not in children(out)[clean.key].data.metrics


def test_a_trial_has_its_poison_as_dataset(out: Path) -> None:
    trial = planned().trials[3]
    result = row(trial)
    result.artifacts = {"poison": "2087f02052d1e2713b2eabb5"}
    projection = MlflowExperiment.of(out, store_uri(out))
    parent = projection.grid("p", "p", [])
    for _ in range(2):
        projection.finish(parent, result)
    (child,) = children(out).values()
    (given,) = child.inputs.dataset_inputs
    assert given.dataset.digest == "2087f02052d1e2713b2eabb5"
    assert given.dataset.name == "photo_digits/lsp(patch=4)/0"
    source = json.loads(given.dataset.source)["tags"]
    assert source["mlflow.source.name"] == "raygrid poison photo_digits/lsp(patch=4)/0"
    assert source["mlflow.source.git.commit"] == "abc1234"


def test_a_trial_has_the_picture_of_its_poison(out: Path) -> None:
    grid = planned()
    (clean, poisoned) = (t for t in grid.trials if "/standard/" in str(t.spec))
    results = {trial.key: row(trial) for trial in (clean, poisoned)}
    for result in results.values():
        result.artifacts = {"poison": f"of {result.key}"}
        ResultLog(out / "results.jsonl").append(result.row())
    picture = picture_of(out, f"of {poisoned.key}")
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"png")
    assert sync(out).written == 2
    client = MlflowExperiment.of(out, store_uri(out)).client
    files = {k: client.list_artifacts(r.info.run_id) for k, r in children(out).items()}
    assert "poison.png" in [file.path for file in files[poisoned.key]]
    assert "poison.png" not in [file.path for file in files[clean.key]]


def test_views_of_an_older_version_are_brought_up_to_date_and_a_persons_stay(out: Path) -> None:
    experiment = MlflowExperiment.of(out, store_uri(out))
    ((tag, text),) = view_tags().items()
    for time_, kept in ((0, False), (1_700_000_000_000, True)):
        other = json.dumps({"name": "x", "createdAt": time_, "state": "{}"})
        experiment.client.set_experiment_tag(experiment.id, tag, other)
        again = MlflowExperiment.of(out, store_uri(out))
        found = again.client.get_experiment(again.id).tags[tag]
        assert found == (other if kept else text)


def test_runs_of_an_older_layout_are_replaced_and_lose_nothing(out: Path) -> None:
    """Their parameters were every resolved value; MLflow cannot change one."""
    grid = planned()
    tracker = Tracked(out)
    drive(tracker, grid, grid.trials)
    experiment = MlflowExperiment.of(out, store_uri(out))
    client = experiment.client
    tracker.close(interrupted=False)
    parent = parents(out)[0].info.run_id
    current = content(out)
    for key, run in children(out).items():  # as version 1 wrote them
        client.delete_run(run.info.run_id)
        old = {KEY: key, PARENT: parent, WRITTEN: run.data.tags[WRITTEN], "verdict": "odd"}
        made = client.create_run(experiment.id, 1, old, "photo_digits/...").info.run_id
        client.log_param(made, "attack.patch", "4")
        client.set_terminated(made)
    lost = client.create_run(experiment.id, 1, {KEY: "no row", PARENT: parent}).info.run_id
    assert sync(out).written == 4
    found = children(out)
    assert found.pop("no row").info.run_id == lost  # nothing stands for it: it stays
    assert {run.data.tags["verdict"] for run in found.values()} == {"odd"}
    assert not any("attack.patch" in run.data.params for run in found.values())
    now = content(out)
    del now["no row"]
    assert now == current
    assert sync(out).written == 0
    assert [run.info.run_id for run in parents(out)] == [parent]


def test_resuming_takes_the_same_runs_up_again(out: Path) -> None:
    grid = planned()
    first = Tracked(out, every=0.05)
    drive(first, grid, grid.trials[:2], status="failed", epochs=1)
    first.trial_started(grid.trials[2])
    first.close(interrupted=True)
    before = {key: run.info.run_id for key, run in children(out).items()}
    assert len(before) == 3

    second = Tracked(out, every=0.05)
    drive(second, grid, grid.trials, finished=LATER + 2000.0)
    second.close(interrupted=False)
    after = children(out)
    assert len(after) == 4
    assert {key: after[key].info.run_id for key in before} == before
    assert {run.info.status for run in after.values()} == {"FINISHED"}
    assert after[grid.trials[0].key].data.metrics["peak_acc"] == 0.3
    assert after[grid.trials[0].key].data.tags["raygrid.error"] == ""
    assert len(parents(out)) == 1


def test_a_resumed_run_brings_rows_that_were_never_told(out: Path) -> None:
    """A driver that was killed had rows in its queue; the next one finds them in the log."""
    grid = planned()
    log = ResultLog(out / "results.jsonl")
    for trial in grid.trials[:3]:
        log.append(row(trial).row())
    tracker = Tracked(out, every=0.05)
    drive(tracker, grid, grid.trials[3:])
    tracker.close(interrupted=False)
    assert set(children(out)) == set(grid.by_key())


def test_sync_makes_of_the_log_what_a_live_run_makes(out: Path) -> None:
    grid = planned()
    tracker = Tracked(out, every=0.05)
    drive(tracker, grid, grid.trials)
    tracker.close(interrupted=False)
    live = content(out)
    other = f"sqlite:///{out}/other.db"
    (out / "other.db").write_bytes((out / "mlflow.db").read_bytes())
    client = MlflowExperiment.of(out, other).client
    for run in runs(out, other)[:3]:
        client.delete_run(run.info.run_id)
    assert sync(out, other).written >= 2
    assert content(out, other) == live
    assert sync(out, other).written == 0
    assert content(out, other) == live


def test_sync_ends_what_a_killed_driver_left_running(out: Path) -> None:
    grid = planned()
    journal = Journal(out, "x")
    journal.started(grid, grid.trials)
    journal.trial_started(grid.trials[0])
    follower = Follower(out, store_uri(out))
    follower.read()
    follower.write()
    assert children(out)[grid.trials[0].key].info.status == "RUNNING"
    assert sync(out).written == 0
    assert children(out)[grid.trials[0].key].info.status == "KILLED"
    assert [run.info.status for run in parents(out)] == ["KILLED"]


class Flaky:
    """An MlflowClient whose answers get lost: every request raises `failures` times.

    after: the request is carried out although its answer is lost.
    """

    def __init__(self, client: Any, failures: int, after: bool) -> None:
        self.client, self.after = client, after
        self.left = dict.fromkeys(
            ("create_run", "log_batch", "log_text", "set_terminated"), failures
        )

    def __getattr__(self, name: str) -> Any:
        from mlflow.exceptions import MlflowException

        def call(*args: Any, **options: Any) -> Any:
            lost = self.left.get(name, 0) > 0
            if lost:
                self.left[name] -= 1
            if not lost or self.after:
                answer = getattr(self.client, name)(*args, **options)
            if lost:
                raise MlflowException("API request failed")
            return answer

        return call


@pytest.mark.parametrize("after", [False, True], ids=["request lost", "answer lost"])
def test_lost_requests_and_lost_answers_leave_no_ghosts(
    out: Path, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "SHORTEST", 0.01)
    monkeypatch.setattr(writer_module, "LONGEST", 0.02)
    monkeypatch.setattr(writer_module, "LAST", 0.02)
    grid = planned()
    tracker = Tracked(out, every=0.01)
    flaky = Flaky(tracker.follower.experiment.client, 3, after)
    tracker.follower.experiment.client = flaky
    drive(tracker, grid, grid.trials)
    tracker.close(interrupted=False)
    assert set(flaky.left.values()) == {0}
    found = children(out)
    assert set(found) == set(grid.by_key())
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert len(parents(out)) == 1
    before = content(out)
    assert sync(out).written == 0
    for points in (said[-1] for said in before.values()):
        assert all(len(set(p)) == len(p) for p in points)


def test_two_runs_of_one_key_become_one(out: Path) -> None:
    projection = MlflowExperiment.of(out, store_uri(out))
    for start in (5, 3, 4):
        projection.client.create_run(projection.id, start, {KEY: "k"})
    kept = projection.find("k")
    assert kept is not None
    assert kept.info.start_time == 3
    assert len(runs(out)) == 1


def test_a_store_that_refuses_never_reaches_the_driver(
    out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    grid = planned()
    tracker = Tracked(out, every=0.01, wait=5)
    tracker.follower.experiment.finish = lambda *_: 1 / 0  # type: ignore[method-assign]
    drive(tracker, grid, grid.trials)
    tracker.close(interrupted=False)
    assert caplog.text.count("MLflow refuses") == 4
    assert not tracker.writer._thread.is_alive()


def test_a_server_that_is_away_costs_the_driver_the_stated_time(
    out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    grid = planned()
    tracker = Tracked(out, uri=f"http://127.0.0.1:{free_port()}", every=0.01, wait=0.5)
    started = time.perf_counter()
    drive(tracker, grid, grid.trials)
    assert time.perf_counter() - started < 1
    tracker.close(interrupted=False)
    assert time.perf_counter() - started < 3
    assert "lacks about 4 entries" in caplog.text
    assert sync(out).written == 4
    assert len(children(out)) == 4


def test_a_writer_of_its_own_writes_the_same(out: Path, tmp_path: Path, template: Path) -> None:
    grid = planned()
    tracker = Tracked(out, own=True, every=0.01)
    drive(tracker, grid, grid.trials)
    tracker.tables([])
    tracker.close(interrupted=False)
    tracker.close(interrupted=False)  # a second time is harmless
    other = tmp_path / "other"
    other.mkdir()
    (other / "mlflow.db").write_bytes(template.read_bytes())
    here = Tracked(other, every=0.01)
    drive(here, grid, grid.trials)
    here.close(interrupted=False)
    assert content(out) == content(other)
    assert [run.info.status for run in parents(out)] == ["FINISHED"]
    assert sync(out).written == 0


@pytest.mark.slow
def test_a_writer_of_its_own_that_dies_is_followed_by_another(
    out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    grid = planned()
    tracker = Tracked(out, own=True, every=60)
    assert isinstance(tracker.writer, WriterProcess)
    drive(tracker, grid, grid.trials[:2])
    tracker.writer._process.kill()
    tracker.writer._process.wait()
    tell(tracker, grid.trials[2:])
    tracker.close(interrupted=False)
    assert "another one goes on" in caplog.text
    assert len(children(out)) == 4
    assert {run.info.status for run in runs(out)} == {"FINISHED"}
    assert sync(out).written == 0


def test_a_writer_of_its_own_needs_an_mlflow_that_answers(out: Path) -> None:
    with pytest.raises(TrackingError, match="MLflow at http"):
        Tracked(out, uri=f"http://127.0.0.1:{free_port()}", own=True)


def test_the_driver_and_the_writer_share_no_heavy_library() -> None:
    """A run writes to MLflow without importing it, and the writer does without torch."""
    says = (
        "import sys, raygrid.tracking.mlflow.process as p;"
        "print({'torch', 'mlflow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", says], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_slow_store_is_waited_for_while_it_gets_on(
    out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It takes longer than `wait` in all, but for no row."""
    grid = planned()
    tracker = Tracked(out, every=0.01, wait=2.0)
    finish = tracker.follower.experiment.finish

    def slowly(parent: str, result: Result, shown: Shown) -> str:
        time.sleep(0.9)
        return finish(parent, result, shown)

    tracker.follower.experiment.finish = slowly  # type: ignore[method-assign]
    drive(tracker, grid, grid.trials)
    tracker.close(interrupted=False)
    assert "lacks" not in caplog.text
    assert "more entries to MLflow" in caplog.text
    assert {run.info.status for run in children(out).values()} == {"FINISHED"}
    assert len(children(out)) == 4


def test_epochs_of_a_trial_that_runs_are_shown_and_bounded_while_they_wait(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower_module, "MOST_EPOCHS", 2)
    grid = planned()
    journal = Journal(out, "mine", every=0.0)
    journal.started(grid, grid.trials)
    trial = grid.trials[0]
    journal.trial_started(trial)
    for epoch in row(trial, epochs=5).history:
        journal.epoch(trial, epoch)
    follower = Follower(out, store_uri(out))
    follower.read()
    assert follower.missing == 1
    follower.write()
    assert follower.missing == 0
    run = children(out)[trial.key]
    assert run.info.status == "RUNNING"
    history = follower.experiment.client.get_metric_history(run.info.run_id, "epoch/test_acc")
    assert sorted((p.step, p.value) for p in history) == [(4, 0.4), (5, 0.5)]


def test_a_journal_writes_at_most_one_line_of_a_trial_in_its_time(out: Path) -> None:
    grid = planned()
    journal = Journal(out, "mine", every=60.0)
    journal.started(grid, grid.trials)
    for trial in grid.trials[:2]:
        journal.trial_started(trial)
        for epoch in row(trial).history:
            journal.epoch(trial, epoch)
    lines = [json.loads(line) for line in (out / "epochs.jsonl").read_text().splitlines()]
    assert [line["key"] for line in lines] == [t.key for t in grid.trials[:2] for _ in range(2)]
    journal.started(grid, grid.trials)
    assert (out / "epochs.jsonl").read_text() == ""


def test_several_grids_of_one_folder_keep_their_parents(out: Path) -> None:
    whole = planned()
    half = Plan(trials=whole.trials[:2])
    for grid, name in ((half, "first"), (whole, "second")):
        tracker = Tracked(out, name=name, every=0.01)
        drive(tracker, grid, grid.trials if name == "first" else whole.trials[2:])
        tracker.close(interrupted=False)
    found = {run.info.run_name: run for run in parents(out)}
    assert set(found) == {"first", "second"}
    assert found["first"].data.tags["raygrid.trials"] == "2"
    assert found["second"].data.tags["raygrid.trials"] == "4"
    home = {run.data.tags[PARENT] for key, run in children(out).items() if key in half.by_key()}
    assert home == {found["first"].info.run_id}
    before = content(out)
    assert sync(out).written == 0
    assert content(out) == before
    assert len(parents(out)) == 2


def test_lines_that_are_no_rows_are_counted_and_the_others_written(out: Path) -> None:
    trial = planned().trials[0]
    good = json.dumps(row(trial).row()).encode()
    (out / "results.jsonl").write_bytes(b"null\n[]\n\xff\xfe\n" + good + b"\n" + b'{"key": "torn')
    follower = Follower(out, store_uri(out))
    follower.read()
    assert (follower.broken, follower.missing) == (3, 1)
    follower.write()
    assert set(children(out)) == {trial.key}


def test_a_folder_of_before_the_journal_keeps_its_parent(out: Path) -> None:
    """Its rows have runs under a parent whose key was made in another way."""
    grid = planned()
    experiment = MlflowExperiment.of(out, store_uri(out))
    parent = experiment.grid("an older key", "older", [str(t.spec) for t in grid.trials])
    for trial in grid.trials[:2]:
        experiment.finish(parent, row(trial))
    experiment.end("an older key", "FINISHED", time.time())
    for trial in grid.trials:
        ResultLog(out / "results.jsonl").append(row(trial).row())
    assert sync(out) == Synced(written=2, there=4)
    assert [run.info.run_id for run in parents(out)] == [parent]
    assert {run.data.tags[PARENT] for run in children(out).values()} == {parent}


def test_a_driver_that_dies_leaves_nothing_running(out: Path) -> None:
    """Its writer notices that nobody talks to it any more, and closes what was open."""
    grid = planned()
    tracker = Tracked(out, own=True, every=0.1)
    assert isinstance(tracker.writer, WriterProcess)
    drive(tracker, grid, grid.trials[:2])
    Journal.trial_started(tracker.members[0], grid.trials[2])  # type: ignore[arg-type]
    process = tracker.writer._process
    assert process.stdin is not None
    process.stdin.close()  # what the kernel does for a driver that was killed
    assert process.wait(60) == 0
    assert process.stdout is not None
    process.stdout.close()
    states = {run.info.status for run in children(out).values()}
    assert states == {"FINISHED", "KILLED"}
    assert [run.info.status for run in parents(out)] == ["KILLED"]


def test_writing_twice_changes_nothing_even_with_nan(out: Path) -> None:
    trial = planned().trials[0]
    result = row(trial, "diverged")
    result.history[2]["train_loss"] = math.inf
    projection = MlflowExperiment.of(out, store_uri(out))
    parent = projection.grid("p", "p", [result.spec])
    projection.finish(parent, result)
    once = str(content(out))
    projection.finish(parent, result)
    assert str(content(out)) == once
    assert "nan" in once


def test_an_older_row_does_not_stand_for_a_newer_one(out: Path) -> None:
    trial = planned().trials[0]
    for epochs, finished in ((3, LATER + 1000.0), (1, LATER + 2000.0)):
        result = row(trial, epochs=epochs, finished=finished)
        ResultLog(out / "results.jsonl").append(result.row())
        assert sync(out).written == 1
    assert children(out)[trial.key].data.metrics["peak_acc"] == 0.1


def test_a_row_that_nobody_can_read_does_not_hold_up_the_others(
    out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trial = planned().trials[0]
    log = ResultLog(out / "results.jsonl")
    log.append({**row(trial).row(), "key": "bad", "spec": "of another version"})
    log.append(row(trial).row())
    assert sync(out) == Synced(written=1, there=1)
    assert "of another version" in caplog.text


def test_names_and_values_fit_mlflow() -> None:
    assert safe_name("acc/jpeg(quality=10)") == "acc/jpeg_quality_10_"
    assert safe_name("/a//b/../c") == "a/c"
    assert len(shortened("x" * 9000, 6000)) == 6000
    assert params_of("photo_digits/lsp@0.2/none/small_cnn/supervised/quick/7", {})["seed"] == "7"
    assert epoch_points([{"epoch": 2.0, "loss": math.inf, "peak_acc": 1.0}])[0][2:] == (2, 2)


def test_the_selected_epoch_is_a_metric_and_the_winner_a_tag() -> None:
    result = Result("spec", "key", peak_epoch=3, selected_epoch=2, finished=1.5)
    points = {name: (value, at, step) for name, value, at, step in final_metrics(result)}
    assert points["more/selected_epoch"] == (2.0, 1500, 0)
    result.selected_epoch, result.winner = None, "jpeg"
    assert tags_of(result)["raygrid.winner"] == "jpeg"
    assert "more/selected_epoch" not in {name for name, *_ in final_metrics(result)}


def test_a_long_run_is_written_in_parts(out: Path) -> None:
    trial = planned().trials[0]
    projection = MlflowExperiment.of(out, store_uri(out))
    result = row(trial, epochs=450)
    projection.finish(projection.grid("p", "p", []), result)
    run = children(out)[trial.key]
    history = projection.client.get_metric_history(run.info.run_id, "epoch/test_acc")
    assert len(history) == 450


def test_a_table_is_one_run_a_row(out: Path) -> None:
    folder = out / "tables"
    folder.mkdir(parents=True)
    head = "dataset,protocol,architecture,learner,poison_ratio,defense,attack,value,published\n"
    line = "cifar10,dvae,{},supervised,1.0,jpeg(quality=10),{},{},{}\n"
    made = folder / "transfer.csv"

    def write(*cells: tuple[str, str, str, str]) -> None:
        made.write_text(head + "".join(line.format(*cell) for cell in cells))

    write(("resnet18", "clean", "0.9", "0.94"), ("vgg11", "clean", "0.8", ""))
    mirror = Mirror(out, store_uri(out), "key", "mine")
    assert mirror.show(made) == 1
    write(
        ("resnet18", "clean", "0.9", "0.94"),
        ("vgg11", "clean", "0.7", ""),
        ("vgg11", "lsp", "", ""),
    )
    for _ in range(2):
        assert mirror.show(made) == 2
    found = {run.data.params["attack"]: run for run in runs(out, experiment=TABLES)}
    assert len(runs(out, experiment=TABLES)) == 2
    clean = found["clean"].data
    assert clean.metrics == {"acc/resnet18": 0.9, "published/resnet18": 0.94, "acc/vgg11": 0.7}
    assert found["lsp"].data.metrics == {}
    assert clean.params["defense"] == "jpeg(quality=10)"
    assert clean.tags["raygrid.table"] == "transfer"
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    client = MlflowExperiment.of(out, store_uri(out), TABLES).client
    history = client.get_metric_history(found["clean"].info.run_id, "acc/vgg11")
    assert [point.value for point in history] == [0.8, 0.7]
    other = Mirror(out, store_uri(out), "another", "theirs")  # the same rows of another grid
    assert other.show(made) == 2
    assert len(runs(out, experiment=TABLES)) == 4


def test_findings_are_the_best_defense_and_the_learner_that_is_harmed_least(
    tmp_path: Path,
) -> None:
    head = "dataset,protocol,architecture,learner,poison_ratio,defense,attack,value,selection\n"
    line = "cifar10,dvae,resnet18,{},1.0,{},{},{},{}\n"
    best = [("none", "0.2", ""), ("jpeg", "0.8", ""), ("oracle", "0.9", "test"), ("gray", "", "")]
    best += [("bridgepure", "0.85", ""), ("eclipse(diffusion_data=test)", "0.95", "")]
    defense = tmp_path / "defense.csv"
    cells = [line.format("supervised", d, "em(budget=8/255)", v, s) for d, v, s in best]
    defense.write_text(head + "".join(cells))
    learner = tmp_path / "worst-learner.csv"
    kept = {"supervised": 0.2, "simclr": 0.7, "supcl": 0.5, "worst": 0.7, "mean_of_max": 0.75}
    cells = [line.format(name, "none", "em(budget=8/255)", v, "") for name, v in kept.items()]
    learner.write_text(head + "".join(cells))
    metrics, tags = findings([defense, learner, tmp_path / "absent.csv"])
    assert metrics == {"best_defense/em": 0.8, "worst_learner/em": 0.7}
    assert tags == {"raygrid.best_defense.em": "jpeg", "raygrid.worst_learner.em": "simclr"}
    clean = "cifar10,dvae,resnet18,supervised,0.0,{},clean,{},\n"
    halves = "cifar10,dvae,{},supervised,1.0,{},em(budget=8/255),{},\n"
    cells = [clean.format(d, v) for d, v in (("none", 0.9), ("jpeg", 0.8))]
    cells += [halves.format("vgg19", d, v) for d, v in (("none", 0.3), ("jpeg", 0.6))]
    with defense.open("a") as file:
        file.writelines(cells)
    metrics, _ = findings([defense])  # clean data's poison ratio is not what sets it apart
    assert metrics == {
        "best_defense/clean - resnet18": 0.9,
        "best_defense/em - resnet18": 0.8,
        "best_defense/em - vgg19": 0.6,
    }


def test_a_description_within_the_limit_says_what_it_leaves_out(tmp_path: Path) -> None:
    panel = "\n\n## panel {}\n\n| a | b |\n" + "| --- | --- |\n" * 60
    file = tmp_path / "transfer.md"
    file.write_text("# transfer\n\ncaption" + "".join(map(panel.format, range(20))))
    said = description([file], ["first line"])
    assert len(said) <= 8000
    assert said.startswith("first line\n\n# transfer\n\ncaption\n\n## panel 0\n")
    assert said.endswith("The rest is among the artifacts, in `tables`.\n")
    assert "## panel 6" in said
    assert "## panel 19" not in said


def test_tables_that_nobody_compares_are_files_alone(out: Path) -> None:
    folder = out / "tables"
    folder.mkdir(parents=True)
    (folder / "defense.csv").write_text("attack,value\nlsp,0.1\n")
    mirror = Mirror(out, store_uri(out), "key", "mine")
    assert mirror.show(folder / "defense.csv") == mirror.show(folder / "transfer.csv") == 0


def test_the_tables_of_a_run_are_mirrored(out: Path) -> None:
    nets, attacks = ("small_cnn", "small_resnet"), ("clean", "lsp")
    spec = "photo_digits/{}/standard/{}/supervised/quick/0"
    grid = plan([spec.format(attack, net) for attack in attacks for net in nets], None)
    tracker = Tracked(out, every=0.01)
    drive(tracker, grid, grid.trials)
    rows = list(ResultLog(out / "results.jsonl").rows())
    tracker.tables(write_tables(out, rows))
    tracker.close(interrupted=False)
    shown = runs(out, experiment=TABLES)
    assert {run.data.tags["raygrid.table"] for run in shown} == {"transfer"}
    assert {run.data.params["attack"] for run in shown} == set(attacks)
    assert all(set(run.data.metrics) == {f"acc/{net}" for net in nets} for run in shown)
    (run,) = parents(out)
    said = run.data.tags["mlflow.note.content"]
    client = MlflowExperiment.of(out, store_uri(out)).client
    where = f"#/experiments/{client.get_experiment_by_name(TABLES).experiment_id}/runs"
    assert said.startswith(f"[Transfer and worst learner as runs that compare]({where})")
    assert "# transfer" in said
    assert "| lsp |" in said
    assert "<" not in said
    text = next((out / "mlartifacts").rglob(f"{run.info.run_id}/**/trials.json")).read_text()
    lines = pd.read_json(io.StringIO(text), orient="split")
    assert len(lines) == len(grid.trials)
    assert set(lines["trial"]) == {f"{attack} · {net}" for attack in attacks for net in nets}
    assert lines["final_acc"].tolist() == pytest.approx([0.3] * 4)
    assert json.loads(run.data.tags["mlflow.loggedArtifacts"])[0]["path"] == "trials.json"
    files = {f.path for f in client.list_artifacts(run.info.run_id, "tables")}
    assert any(file.startswith("tables/transfer-") and file.endswith(".png") for file in files)
    client.set_tag(run.info.run_id, "mlflow.note.content", "mine")  # a person's stays
    assert sync(out).written == 0
    assert parents(out)[0].data.tags["mlflow.note.content"] == "mine"
    empty = f"sqlite:///{out}/other.db"  # `sync` brings them all where nothing is
    assert sync(out, empty).written == 4
    assert len(runs(out, empty, TABLES)) == len(shown)
    (parent,) = parents(out, empty)
    files = MlflowExperiment.of(out, empty).client.list_artifacts(parent.info.run_id, "tables")
    assert "tables/transfer.csv" in {file.path for file in files}


@pytest.mark.parametrize(
    ("uri", "word"),
    [
        ("./mlruns", "file store"),
        ("file:///tmp/mlruns", "file store"),
        ("ftp://host/x", "unknown kind 'ftp'"),
        ("http://host:port", "malformed"),
        ("http://", "names no host"),
        ("sqlite:///", "names no host or file"),
    ],
)
def test_an_address_that_cannot_be_one_is_refused(tmp_path: Path, uri: str, word: str) -> None:
    with pytest.raises(TrackingError, match=word) as caught:
        Tracker(tmp_path, uri)
    assert "\n" not in str(caught.value)


def test_check_says_what_is_wrong_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match="does not answer") as caught:
        check_tracking(f"http://me:secret@127.0.0.1:{free_port()}", timeout=2)
    assert "secret" not in str(caught.value)
    (tmp_path / "broken.db").write_text("no database " * 1000)
    with pytest.raises(TrackingError, match="cannot be used"):
        check_tracking(f"sqlite:///{tmp_path}/broken.db")


def test_a_database_is_silent_and_its_faults_are_one_line(
    out: Path, template: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    copy = out / "read_only.db"
    copy.write_bytes(template.read_bytes())
    projection = MlflowExperiment.of(out, f"sqlite:///{copy}")
    projection.id  # noqa: B018
    copy.unlink()
    with pytest.raises(Exception, match="sqlite3") as caught:
        projection.find("k") or projection.open("k", "n", {}, 0.0)
    assert without_credentials(caught.value).startswith("(sqlite3.OperationalError) ")
    assert capfd.readouterr() == ("", "")


def test_the_address_is_the_given_one_or_the_environment_or_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert store_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.chdir(tmp_path)
    assert store_uri(tmp_path, "sqlite:///here.db") == f"sqlite:///{tmp_path}/here.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert store_uri(tmp_path) == "http://127.0.0.1:5000"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


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


AWAY = 60.0  # seconds that a server may be gone without any harm


@contextmanager
def locked(database: Path) -> Iterator[None]:
    """Another process's long transaction: nobody else can write or even read."""
    other = sqlite3.connect(database, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


@pytest.mark.slow
def test_a_database_that_is_locked_for_a_while_loses_nothing(out: Path) -> None:
    """The driver never waits for it; what was to be written is written afterwards."""
    grid = planned()
    tracker = Tracked(out, every=0.1, wait=60)
    drive(tracker, grid, grid.trials[:2])
    with locked(out / "mlflow.db"):
        started = time.perf_counter()
        tell(tracker, grid.trials[2:])
        assert time.perf_counter() - started < 1
        time.sleep(30)
        assert tracker.follower.missing > 0
    tracker.close(interrupted=False)
    found = children(out)
    assert set(found) == set(grid.by_key())
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    before = content(out)
    assert sync(out).written == 0
    assert content(out) == before


@pytest.mark.slow
def test_a_server_killed_and_restarted_during_a_run_loses_nothing(out: Path) -> None:
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    grid = planned()
    (out / "server.db").write_bytes((out / "mlflow.db").read_bytes())
    tracker = Tracked(out, uri, every=0.1, wait=120)
    with server(out, port):
        check_tracking(uri)
        drive(tracker, grid, grid.trials[:2])
        deadline = time.time() + 60
        while tracker.follower.missing and time.time() < deadline:
            time.sleep(0.2)
        tracker.trial_started(grid.trials[2])
        time.sleep(0.5)
    tell(tracker, grid.trials[2:])  # the server is away
    time.sleep(AWAY)
    assert tracker.writer.problem
    with server(out, port):
        tracker.close(interrupted=False)
        found = children(out, uri)
        assert set(found) == set(grid.by_key())
        assert {run.info.status for run in found.values()} == {"FINISHED"}
        assert len(parents(out, uri)) == 1
        before = content(out, uri)
        assert sync(out, uri).written == 0
        assert content(out, uri) == before
        client = MlflowExperiment.of(out, uri).client
        for run in found.values():
            assert [f.path for f in client.list_artifacts(run.info.run_id)] == FILES


# folders that are moved, and their names


def files_of(out: Path) -> set[str]:
    """The artifacts of all runs, as MLflow finds them."""
    client = MlflowExperiment.of(out, store_uri(out)).client
    return {f.path for run in runs(out) for f in client.list_artifacts(run.info.run_id)}


@pytest.mark.parametrize("kind", ["moved", "copied"])
def test_artifacts_lie_under_the_folder_as_it_is_now(out: Path, kind: str) -> None:
    grid = planned()
    tracker = Tracked(out)
    drive(tracker, grid, grid.trials[:2])
    tracker.close(interrupted=False)
    assert files_of(out) == set(FILES)
    before = {p.relative_to(out) for p in out.rglob("*.json")}
    there = out.parent / "else where"
    (shutil.move if kind == "moved" else shutil.copytree)(out, there)
    assert sync(there).written == 0
    for trial in grid.trials[2:4]:
        ResultLog(there / "results.jsonl").append(row(trial).row())
    sync(there)
    assert files_of(there) == set(FILES)
    assert len(list((there / "mlartifacts").rglob("history.json"))) == 4
    assert out.exists() == (kind == "copied")
    assert {p.relative_to(out) for p in out.rglob("*.json")} == (before if out.exists() else set())
    uris = [run.info.artifact_uri for run in runs(there)]
    assert all(uri.startswith((there / "mlartifacts").as_uri()) for uri in uris)


@pytest.mark.parametrize("name", ["a?b", "a%20b", "a#b", "50%", "ü & =x"])
def test_the_database_lies_in_the_folder_whatever_its_name(
    tmp_path: Path, template: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    out = tmp_path / name
    out.mkdir()
    (out / "mlflow.db").write_bytes(template.read_bytes())
    ResultLog(out / "results.jsonl").append(row(planned().trials[0]).row())
    assert sync(out).there == 1
    assert files_of(out) == set(FILES)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    given = store_uri(tmp_path, store_uri(out))
    assert given == store_uri(out), "an address that was printed may be given"
    assert database_path(given) == out / "mlflow.db"


# pictures of poisons in large grids


def pictured(out: Path, trials: list[Trial], poisons: int) -> None:
    """Rows of trials that share so many poisons, each with a picture."""
    for number, trial in enumerate(trials):
        result = row(trial)
        result.artifacts = {"poison": f"poison{number % poisons}"}
        ResultLog(out / "results.jsonl").append(result.row())
    for number in range(poisons):
        file = picture_of(out, f"poison{number}")
        file.parent.mkdir(parents=True)
        file.write_bytes(b"png")


def test_a_large_grid_has_one_picture_a_poison_and_says_where(
    out: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pictures_module, "MOST", 3)
    trials = planned().trials
    pictured(out, trials, poisons=2)
    assert sync(out).written == 4
    client = MlflowExperiment.of(out, store_uri(out)).client
    having: dict[str, list[str]] = {}
    for run in children(out).values():
        files = [file.path for file in client.list_artifacts(run.info.run_id)]
        poison = run.data.tags["raygrid.artifact.poison"]
        place = run.data.tags["raygrid.picture"]
        if "poison.png" in files:
            assert place == ""
            having.setdefault(poison, []).append(run.info.run_id)
    assert {poison: len(found) for poison, found in having.items()} == {"poison0": 1, "poison1": 1}
    others = [run for run in children(out).values() if run.data.tags["raygrid.picture"]]
    assert len(others) == 2
    for run in others:
        (holder,) = having[run.data.tags["raygrid.artifact.poison"]]
        assert run.data.tags["raygrid.picture"] == (
            f"#/experiments/1/runs/{holder}/artifacts/poison.png"
        )
    said = "has 4 trials, over 3: a picture of each poison is at one of them"
    assert caplog.text.count(said) == 1


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_trials_are_in_mlflow_in_little_room(out: Path) -> None:
    """With twenty poisons; the list that the printed link opens answers at once."""
    attacks = [f"lsp(patch={patch})" for patch in range(1, 21)]
    grid = plan(
        Grid(
            attacks=tuple(attacks),
            defenses=("standard", *(f"jpeg(quality={q})" for q in range(10, 59))),
            protocols=("quick(epochs=3)",),
            seeds=tuple(range(10)),
        ).specs(),
        None,
    )
    assert len(grid.trials) == 10_000
    pictured(out, grid.trials, poisons=20)
    for number in range(20):
        picture_of(out, f"poison{number}").write_bytes(bytes(60_000))
    journal = Journal(out, "large")
    journal.started(grid, grid.trials)
    journal.close(interrupted=False)
    started = time.perf_counter()
    assert sync(out) == Synced(written=10_000, there=10_000)
    seconds = time.perf_counter() - started
    artifacts = [file for file in (out / "mlartifacts").rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in artifacts) / 1e6
    print(
        f"\n10,000 trials: {seconds:.0f} s, {seconds / 10:.0f} ms each; {size:.0f} MB of artifacts"
    )
    print(f"database {(out / 'mlflow.db').stat().st_size / 1e6:.0f} MB")
    assert sum(file.name == "poison.png" for file in artifacts) == 20
    assert size < 100, "10,000 pictures would be 600 MB"
    experiment = MlflowExperiment.of(out, store_uri(out))
    state = json.loads(json.loads(view_tags()["mlflow.sharedViewState.raygrid"])["state"])
    used = time.process_time()  # the database is in this process, and so is all of its work
    page = experiment.client.search_runs(
        [experiment.id],
        state["searchFilter"],
        order_by=["metrics.`final_acc` ASC"],
        max_results=100,
    )
    assert len(page) == 100
    assert time.process_time() - used < 5
    started = time.perf_counter()
    assert sync(out).written == 0
    assert time.perf_counter() - started < 300
