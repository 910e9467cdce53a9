"""Where MLflow keeps a run: addresses, databases, folders that are moved."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from raygrid.core.errors import TrackingError
from raygrid.storage.results import ResultLog
from raygrid.tracking.mlflow import Tracker, check_tracking, store_uri, sync
from raygrid.tracking.mlflow.address import database_path, without_credentials
from raygrid.tracking.mlflow.client import MlflowExperiment
from tests.ports import free_port
from tests.tracking.tracked import FILES, Tracked, drive, planned, row, runs


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
    out: Path, mlflow_template: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    copy = out / "read_only.db"
    copy.write_bytes(mlflow_template.read_bytes())
    projection = MlflowExperiment.of(out, f"sqlite:///{copy}")
    projection.id  # noqa: B018
    copy.unlink()
    with pytest.raises(Exception, match="sqlite3") as caught:
        projection.keep_first("k") or projection.open("k", "n", {}, 0.0)
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
    tmp_path: Path, mlflow_template: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    out = tmp_path / name
    out.mkdir()
    (out / "mlflow.db").write_bytes(mlflow_template.read_bytes())
    ResultLog(out / "results.jsonl").append(row(planned().trials[0]).row())
    assert sync(out).there == 1
    assert files_of(out) == set(FILES)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    given = store_uri(tmp_path, store_uri(out))
    assert given == store_uri(out), "an address that was printed may be given"
    assert database_path(given) == out / "mlflow.db"
