"""MLflow loses nothing and doubles nothing when answers, servers, writers or drivers are lost."""

from __future__ import annotations

import json
import re
import select
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from raygrid.core.errors import DataError, TrackingError
from raygrid.storage.lines import append_line
from raygrid.storage.results import RESULTS_FILE, ResultLog
from raygrid.tracking.journal import EPOCHS_FILE, GRIDS_FILE, Journal, Tail
from raygrid.tracking.mlflow import check_tracking, store_uri, sync
from raygrid.tracking.mlflow import writer as writer_module
from raygrid.tracking.mlflow.client import KEY_TAG, PARENT_TAG, MlflowExperiment
from raygrid.tracking.mlflow.connection import mlflow_client
from raygrid.tracking.mlflow.facts import Shown
from raygrid.tracking.mlflow.follower import Follower
from raygrid.tracking.mlflow.process import WriterProcess
from raygrid.tracking.mlflow.sync import Synced
from raygrid.trials.result import Result
from tests.patience import crowd
from tests.ports import free_port
from tests.tracking.tracked import (
    FILES,
    LATER,
    Tracked,
    children,
    content,
    drive,
    parents,
    planned,
    row,
    runs,
    server,
    tell,
)


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
    monkeypatch.setattr(writer_module, "SHORTEST_PAUSE", 0.01)
    monkeypatch.setattr(writer_module, "LONGEST_PAUSE", 0.02)
    monkeypatch.setattr(writer_module, "LAST_PAUSE", 0.02)
    grid = planned()
    tracker = Tracked(out, every=0.01)
    flaky = Flaky(tracker.follower.experiment.client, 3, after)
    tracker.follower.experiment.client = flaky
    drive(tracker, grid, grid.trials)
    tracker.close(interrupted=False)
    assert set(flaky.left.values()) == {0}
    found = children(out)
    assert set(found) == {trial.key for trial in grid.trials}
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert len(parents(out)) == 1
    before = content(out)
    assert sync(out).written == 0
    for points in (said[-1] for said in before.values()):
        assert all(len(set(p)) == len(p) for p in points)


def test_two_runs_of_one_key_become_one(out: Path) -> None:
    projection = MlflowExperiment.of(out, store_uri(out))
    for start in (5, 3, 4):
        projection.client.create_run(projection.id, start, {KEY_TAG: "k"})
    kept = projection.keep_first("k")
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
    assert tracker.follower.missing == 4
    assert "lacks about 4 entries (it refuses them)" in caplog.text
    assert not tracker.writer._thread.is_alive()


def test_a_server_that_is_away_costs_the_driver_the_stated_time(
    out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    grid = planned()
    tracker = Tracked(out, uri=f"http://127.0.0.1:{free_port()}", every=0.01, wait=0.5)
    started = time.perf_counter()
    drive(tracker, grid, grid.trials)
    assert time.perf_counter() - started < 1 * crowd()
    tracker.close(interrupted=False)
    assert time.perf_counter() - started < 3 * crowd()
    assert "lacks about 4 entries" in caplog.text
    assert sync(out).written == 4
    assert len(children(out)) == 4


def test_a_writer_of_its_own_writes_the_same_and_fills_no_pipe(
    out: Path, tmp_path: Path, mlflow_template: Path
) -> None:
    """A client of a server prints for each run; after some 370 of them the writer stood still."""
    grid = planned()
    tracker = Tracked(out, own=True, every=0.01)
    assert isinstance(tracker.writer, WriterProcess)
    process = tracker.writer._process
    assert select.select([process.stdout], [], [], 10 * crowd())[0] == [process.stdout]
    assert process.stdout is not None
    assert process.stdout.read() == "", "nobody writes to it any more"
    assert process.poll() is None
    drive(tracker, grid, grid.trials)
    tracker.tables([])
    tracker.close(interrupted=False)
    assert process.returncode is not None
    tracker.close(interrupted=False)  # a second time is harmless
    other = tmp_path / "other"
    other.mkdir()
    (other / "mlflow.db").write_bytes(mlflow_template.read_bytes())
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


def test_a_client_of_a_server_prints_nothing_of_runs() -> None:
    from mlflow.environment_variables import MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT

    mlflow_client("http://127.0.0.1:1")
    assert MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT.get() is True


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
        time.sleep(0.6)
        return finish(parent, result, shown)

    tracker.follower.experiment.finish = slowly  # type: ignore[method-assign]
    drive(tracker, grid, grid.trials)
    tracker.close(interrupted=False)
    assert "lacks" not in caplog.text
    assert "more entries to MLflow" in caplog.text
    assert {run.info.status for run in children(out).values()} == {"FINISHED"}
    assert len(children(out)) == 4


def test_lines_that_are_no_rows_are_counted_and_the_others_written(out: Path) -> None:
    trial = planned().trials[0]
    good = json.dumps(row(trial).row()).encode()
    (out / "results.jsonl").write_bytes(b"null\n[]\n\xff\xfe\n" + good + b"\n" + b'{"key": "torn')
    follower = Follower(out, store_uri(out))
    follower.read()
    assert (follower.broken, follower.missing) == (3, 1)
    follower.write()
    assert set(children(out)) == {trial.key}


def test_a_line_of_the_journal_that_was_cut_off_costs_no_other_line(out: Path) -> None:
    """A full disk or a lost machine cuts it off; the next run began in the middle of it."""
    grid = planned()
    Journal(out, "first").started(grid, grid.trials)
    with (out / GRIDS_FILE).open("ab") as file:
        file.write(b'{"grid": "k", "at": 1.0, "event": "tab')
    journal = Journal(out, "second")
    journal.started(grid, grid.trials)
    journal.close(interrupted=False)
    tail = Tail(out / GRIDS_FILE)
    events = [(line["event"], line.get("name")) for _, line in tail.read()]
    assert events == [("started", "first"), ("started", "second"), ("ended", None)]
    assert tail.broken == 1


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


def test_a_row_that_nobody_can_read_does_not_hold_up_the_others(
    out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trial = planned().trials[0]
    log = ResultLog(out / "results.jsonl")
    log.append({**row(trial).row(), "key": "bad", "spec": "of another version"})
    log.append(row(trial).row())
    assert sync(out) == Synced(written=1, there=1)
    assert "of another version" in caplog.text


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [
        (GRIDS_FILE, {"event": "started", "specs": []}, "it has no 'name', which has to be a text"),
        (
            GRIDS_FILE,
            {"event": "started", "name": "a", "specs": 3},
            "'specs' is 3, which has to be a l",
        ),
        (
            EPOCHS_FILE,
            {"key": "k", "spec": "s", "resolved": {}},
            "it has no 'start', which has to be a",
        ),
    ],
)
def test_a_line_of_the_journal_without_a_field_is_no_fault_of_mlflows(
    out: Path, caplog: pytest.LogCaptureFixture, name: str, line: dict[str, Any], said: str
) -> None:
    """`sync` names it; a run, which nothing may stop, says so once and writes all the rest."""
    grid = planned()
    tracker = Tracked(out, every=0.01)
    tracker.started(grid, grid.trials[:1])
    append_line(out / name, json.dumps({"grid": "k", **line}), durable=False)
    tell(tracker, grid.trials[:1])
    tracker.close(interrupted=False)
    number = (
        (out / name).read_bytes().splitlines().index(json.dumps({"grid": "k", **line}).encode())
    )
    place = f"{out / name}, line {number + 1}: {said}"
    assert caplog.text.count(place) == 1
    assert "trying again" not in caplog.text
    assert set(children(out)) == {grid.trials[0].key}
    with pytest.raises(DataError, match=re.escape(place)):
        sync(out)


def test_sync_says_whose_fault_it_is(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.exceptions import MlflowException

    ResultLog(out / RESULTS_FILE).append(row(planned().trials[0]).row())

    def fails_with(fault: Exception) -> None:
        def end(*_: Any) -> None:
            raise fault

        monkeypatch.setattr(Follower, "end", end)
        sync(out)

    with pytest.raises(TrackingError, match="MLflow stopped answering during sync: away"):
        fails_with(ConnectionError("away"))
    with pytest.raises(TrackingError, match="MLflow refuses what sync asks: too long"):
        fails_with(MlflowException.invalid_parameter_value("too long"))
    with pytest.raises(PermissionError, match=r"defense\.csv"):
        fails_with(PermissionError(13, "Permission denied", "defense.csv"))
    with pytest.raises(ZeroDivisionError):
        fails_with(ZeroDivisionError())


def test_a_writer_that_meets_a_fault_of_the_program_says_so_and_ends(
    out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Every further round would meet it again."""
    grid = planned()
    tracker = Tracked(out, every=0.01)
    tracker.follower.write = lambda *_: 1 / 0  # type: ignore[method-assign,assignment]
    drive(tracker, grid, grid.trials[:1])
    tracker.close(interrupted=False)
    assert caplog.text.count("MLflow's writer ended; `raygrid sync` brings what is missing") == 1
    assert "ZeroDivisionError: division by zero" in caplog.text
    assert sync(out).written == 1


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


def emptied(database: Path) -> None:
    """What somebody does who starts MLflow afresh while a run goes on."""
    with closing(sqlite3.connect(database, timeout=30)) as other, other:
        names = other.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (name,) in names:
            if name != "alembic_version":
                other.execute(f'DELETE FROM "{name}"')


@pytest.mark.parametrize("when", ["before the last rows", "before the tables", "before the end"])
def test_an_mlflow_that_was_emptied_is_told_everything_anew(out: Path, when: str) -> None:
    grid = planned()
    report = out / "report.html"
    report.write_text("a page", encoding="utf-8")
    journal = Journal(out, "mine")
    follower = Follower(out, store_uri(out))
    journal.started(grid, grid.trials)
    for trial in grid.trials[:-1]:
        ResultLog(out / RESULTS_FILE).append(row(trial).row())

    def in_a_round() -> None:
        follower.read()
        follower.write()

    def lost(action: Callable[[], None]) -> None:
        emptied(out / "mlflow.db")
        with pytest.raises(Exception, match=r"No Experiment|not found"):
            action()
        assert follower.missing >= 3, "everything waits again"

    in_a_round()
    ResultLog(out / RESULTS_FILE).append(row(grid.trials[-1]).row())
    if when == "before the last rows":
        lost(in_a_round)
    in_a_round()
    journal.tables([report])
    if when == "before the tables":
        lost(in_a_round)
    in_a_round()
    journal.close(interrupted=False)
    in_a_round()
    if when == "before the end":
        lost(lambda: follower.end("FINISHED", LATER))
        in_a_round()
    follower.end("FINISHED", LATER)
    assert follower.missing == 0
    found = children(out)
    assert set(found) == {trial.key for trial in grid.trials}
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    (parent,) = parents(out)
    assert parent.info.status == "FINISHED"
    assert {run.data.tags[PARENT_TAG] for run in found.values()} == {parent.info.run_id}
    files = follower.experiment.client.list_artifacts(parent.info.run_id)
    assert "report.html" in [file.path for file in files]


def test_a_run_whose_mlflow_is_emptied_ends_with_all_of_it_there(
    out: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "SHORTEST_PAUSE", 0.01)
    monkeypatch.setattr(writer_module, "LAST_PAUSE", 0.2)
    grid = planned()
    tracker = Tracked(out, every=0.01)
    drive(tracker, grid, grid.trials[:2])
    deadline = time.monotonic() + 60
    while tracker.follower.written < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    emptied(out / "mlflow.db")
    tell(tracker, grid.trials[2:])
    tracker.close(interrupted=False)
    assert set(children(out)) == {trial.key for trial in grid.trials}
    assert {run.info.status for run in runs(out)} == {"FINISHED"}
    assert "lacks" not in caplog.text


@pytest.mark.slow
def test_a_database_that_is_locked_for_a_while_loses_nothing(out: Path) -> None:
    """The driver never waits for it; what was to be written is written afterwards."""
    grid = planned()
    tracker = Tracked(out, every=0.1, wait=60)
    drive(tracker, grid, grid.trials[:2])
    with locked(out / "mlflow.db"):
        started = time.perf_counter()
        tell(tracker, grid.trials[2:])
        assert time.perf_counter() - started < 1 * crowd()
        time.sleep(30)
        assert tracker.follower.missing > 0
    tracker.close(interrupted=False)
    found = children(out)
    assert set(found) == {trial.key for trial in grid.trials}
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
        assert set(found) == {trial.key for trial in grid.trials}
        assert {run.info.status for run in found.values()} == {"FINISHED"}
        assert len(parents(out, uri)) == 1
        before = content(out, uri)
        assert sync(out, uri).written == 0
        assert content(out, uri) == before
        client = MlflowExperiment.of(out, uri).client
        for run in found.values():
            assert [f.path for f in client.list_artifacts(run.info.run_id)] == FILES
