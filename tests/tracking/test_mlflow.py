"""MLflow holds what the results hold, once: runs, parameters, metrics, pictures, resumed grids."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import requests

from raygrid.engine.grid import Grid, Plan, plan
from raygrid.literature.printed import Apart, Printed
from raygrid.storage.lines import append_line
from raygrid.storage.results import ResultLog
from raygrid.tracking.journal import EPOCHS_FILE, GRIDS_FILE, Journal, picture_of
from raygrid.tracking.mlflow import followed as followed_module
from raygrid.tracking.mlflow import pictures as pictures_module
from raygrid.tracking.mlflow import store_uri, sync
from raygrid.tracking.mlflow.client import KEY_TAG, PARENT_TAG, MlflowExperiment
from raygrid.tracking.mlflow.connection import is_transient
from raygrid.tracking.mlflow.facts import (
    Shown,
    epoch_points,
    final_metrics,
    params_of,
    safe_name,
    shortened,
    tags_of,
)
from raygrid.tracking.mlflow.followed import FollowedGrids, UnfinishedTrials, followed
from raygrid.tracking.mlflow.follower import Follower
from raygrid.tracking.mlflow.sync import Synced
from raygrid.tracking.mlflow.trial_runs import WRITTEN_TAG, TrialRuns
from raygrid.tracking.mlflow.view import view_tags
from raygrid.tracking.names import names_of
from raygrid.trials.result import Result
from raygrid.trials.trial import Trial
from tests.tracking.tracked import (
    LATER,
    Tracked,
    children,
    content,
    drive,
    parents,
    planned,
    row,
    runs,
)


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
    assert set(found) == {trial.key for trial in grid.trials}
    trial = next(t for t in grid.trials if str(t.spec).startswith("photo_digits/lsp(patch=4)/gray"))
    child = found[trial.key]
    assert child.info.status == "FINISHED"
    assert child.info.run_name == "lsp · grayscale"
    assert child.data.tags["raygrid.spec"] == str(trial.spec)
    assert child.data.tags[PARENT_TAG] == parent.info.run_id
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
    assert {run.data.tags[KEY_TAG] for run in listed} == {trial.key for trial in grid.trials}


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
    projection = TrialRuns.of(out, store_uri(out))
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
        old = {
            KEY_TAG: key,
            PARENT_TAG: parent,
            WRITTEN_TAG: run.data.tags[WRITTEN_TAG],
            "verdict": "odd",
        }
        made = client.create_run(experiment.id, 1, old, "photo_digits/...").info.run_id
        client.log_param(made, "attack.patch", "4")
        client.set_terminated(made)
    lost = client.create_run(experiment.id, 1, {KEY_TAG: "no row", PARENT_TAG: parent}).info.run_id
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
    assert set(children(out)) == {trial.key for trial in grid.trials}


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


def test_epochs_of_a_trial_that_runs_are_shown_and_bounded_while_they_wait(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followed_module, "MOST_EPOCHS", 2)
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
    ours = {trial.key for trial in half.trials}
    home = {run.data.tags[PARENT_TAG] for key, run in children(out).items() if key in ours}
    assert home == {found["first"].info.run_id}
    before = content(out)
    assert sync(out).written == 0
    assert content(out) == before
    assert len(parents(out)) == 2


def test_a_folder_of_before_the_journal_keeps_its_parent(out: Path) -> None:
    """Its rows have runs under a parent whose key was made in another way."""
    grid = planned()
    experiment = TrialRuns.of(out, store_uri(out))
    parent = experiment.grid("an older key", "older", [str(t.spec) for t in grid.trials])
    for trial in grid.trials[:2]:
        experiment.finish(parent, row(trial))
    experiment.end("an older key", "FINISHED", time.time())
    for trial in grid.trials:
        ResultLog(out / "results.jsonl").append(row(trial).row())
    assert sync(out) == Synced(written=2, there=4)
    assert [run.info.run_id for run in parents(out)] == [parent]
    assert {run.data.tags[PARENT_TAG] for run in children(out).values()} == {parent}


def test_writing_twice_changes_nothing_even_with_nan(out: Path) -> None:
    trial = planned().trials[0]
    result = row(trial, "diverged")
    result.history[2]["train_loss"] = math.inf
    projection = TrialRuns.of(out, store_uri(out))
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


def test_a_failed_attempt_at_a_finished_trial_leaves_it_finished(out: Path) -> None:
    """Tables say so too; a disk that was full for weights to keep made it FAILED."""
    trial = planned().trials[0]
    log = ResultLog(out / "results.jsonl")
    log.append(row(trial, finished=LATER + 1000.0).row())
    assert sync(out).written == 1
    log.append(row(trial, status="failed", finished=LATER + 2000.0).row())
    assert sync(out).written == 0
    child = children(out)[trial.key]
    assert (child.info.status, child.data.tags["raygrid.status"]) == ("FINISHED", "done")
    assert sync(out, f"sqlite:///{out}/other.db").written == 1
    (again,) = children(out, f"sqlite:///{out}/other.db").values()
    assert again.info.status == "FINISHED"


def test_nothing_is_subtracted_from_a_number_on_other_data() -> None:
    (trial,) = plan(["cifar10/lsp/jpeg/resnet18/supervised/apbench/0"], None).trials
    shown = Shown("lsp", published=Printed(0.8, "apbench T3"))
    few = "cifar10 (9 of 10 images)"
    for mark, subtracted in ((f"not the official data: {few}", False), ("x", True)):
        result = replace(row(trial), marks=[mark])
        names = {name for name, *_ in final_metrics(result, shown)}
        assert "published_acc" in names
        assert ("minus_published" in names) == subtracted
        said = tags_of(result, shown)["raygrid.published"]
        apart = f"; on other data than {few}"
        assert said == "apbench T3" + ("" if subtracted else apart)


def test_a_number_of_another_protocol_is_worded_as_on_the_page() -> None:
    """MLflow said `apbench T3; apbench; on other files ...`, the page `protocol of apbench`."""
    (trial,) = plan(["cifar10/lsp/jpeg/resnet18/supervised/quick/0"], None).trials
    result = replace(row(trial), marks=["not the official files: cifar10 (JPEG files)"])
    for number, said in (
        (Printed(0.8, "apbench T3", Apart("apbench")), "apbench T3; protocol of apbench"),
        (
            Printed(0.8, "dune main", notes=("as a note prints it",)),
            "dune main; on other files than cifar10 (JPEG files); as a note prints it",
        ),
    ):
        assert tags_of(result, Shown("lsp", published=number))["raygrid.published"] == said


def test_what_a_grid_looked_up_comes_back_from_its_line() -> None:
    number = Printed(
        0.8, "a T3", Apart("a", "b=1", ("em_apb",)), 0.1, True, ("x",), ("b T1: 20.00",)
    )
    line = {"name": "g", "specs": ["s"], "printed": {"s": asdict(number)}}
    assert followed("k", json.loads(json.dumps(line))).published == {"s": number}
    older = {"name": "g", "specs": ["s"], "published": {"s": [0.8, "a T3; a"]}}
    assert followed("k", older).published is None, "it is looked up again"


def test_a_trial_belongs_to_the_first_grid_that_has_it(tmp_path: Path) -> None:
    grids = FollowedGrids(tmp_path)
    for line in (
        {"grid": "a", "event": "started", "name": "a", "specs": ["s", "t"]},
        {"grid": "b", "event": "started", "name": "b", "specs": ["t", "u"]},
        {"grid": "a", "event": "tables", "files": ["tables/defense.md"]},
        {"grid": "a", "event": "ended", "status": "KILLED", "at": 3.0},
        {"grid": "c", "event": "ended", "status": "FINISHED", "at": 4.0},
    ):
        append_line(tmp_path / GRIDS_FILE, json.dumps(line), durable=False)
    grids.read()
    homes = [grids.home_of(spec) for spec in "stuv"]
    assert [grid and grid.key for grid in homes] == ["a", "a", "b", None]
    first, second = grids.known.values()
    assert (first.files, first.ended) == ([tmp_path / "tables" / "defense.md"], ("KILLED", 3.0))
    assert (second.files, second.ended) == ([], None)
    again = {"grid": "a", "event": "started", "name": "a", "specs": ["s", "t"]}
    append_line(tmp_path / GRIDS_FILE, json.dumps(again), durable=False)
    grids.read()
    assert first.ended is None


def test_a_trial_that_runs_again_is_unfinished_whatever_row_it_had(tmp_path: Path) -> None:
    trials = UnfinishedTrials(tmp_path)
    for key, start in (("old", 1.0), ("again", 5.0)):
        begun = {"key": key, "spec": "s", "resolved": {}, "start": start}
        for line in (begun, {"key": key, "epoch": {"epoch": 1.0}}):
            append_line(tmp_path / EPOCHS_FILE, json.dumps(line), durable=False)
    trials.read({"old": 2.0, "again": 2.0})
    ((key, trial),) = trials.waiting()
    assert (key, trial.epochs) == ("again", [{"epoch": 1.0}])
    trial.told, trial.epochs = True, []
    assert list(trials.waiting()) == []


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
    projection = TrialRuns.of(out, store_uri(out))
    result = row(trial, epochs=450)
    projection.finish(projection.grid("p", "p", []), result)
    run = children(out)[trial.key]
    history = projection.client.get_metric_history(run.info.run_id, "epoch/test_acc")
    assert len(history) == 450


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
    monkeypatch.setattr(pictures_module, "MOST_PICTURED_TRIALS", 3)
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


@pytest.mark.parametrize(
    ("code", "passing"), [(413, False), (403, False), (429, True), (503, True)]
)
def test_what_a_server_refuses_is_not_asked_for_without_end(code: int, passing: bool) -> None:
    """Uploads raise OSErrors of requests: a page beyond the proxy's limit blocked everything."""
    answer = requests.Response()
    answer.status_code = code
    assert is_transient(requests.HTTPError("refused", response=answer)) == passing
    assert is_transient(requests.ConnectionError("no route"))
