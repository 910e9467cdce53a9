"""Patience and its end: hanging jobs, full disks, notices of a cloud."""

from __future__ import annotations

import errno
import itertools
import json
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

from raygrid.api.run_grid import Options, run_grid
from raygrid.core.errors import Moving, StoreError
from raygrid.core.retry import RETRY_SECONDS, patiently
from raygrid.engine import notice
from raygrid.engine.grid import plan
from raygrid.engine.local import run_inline
from raygrid.engine.schedule import Agenda
from raygrid.engine.worker import Worker
from raygrid.storage import checkpoints
from raygrid.storage import store as store_module
from raygrid.storage.checkpoints import Checkpointer, CheckpointSlot
from raygrid.storage.results import ResultLog
from raygrid.storage.store import Bundle, Store
from raygrid.trials.result import Result
from tests import plugin
from tests.engine.test_run import Recorder

assert plugin.CARD
BUNDLE = Bundle({"x": torch.arange(3)})
FULL = OSError(errno.ENOSPC, "No space left on device")


class Failing:
    """A function that fails a few times before it does its work."""

    def __init__(self, work: Any, failures: int, error: Exception) -> None:
        self.work, self.left, self.error = work, failures, error

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.left -= 1
        if self.left >= 0:
            raise self.error
        return self.work(*args, **options)


def test_a_disk_that_is_full_for_a_minute_costs_time_alone(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hurried: list[float]
) -> None:
    monkeypatch.setattr(store_module.os, "rename", Failing(os.rename, 5, FULL))
    patiently(lambda: store.put("poison", "k", BUNDLE))
    assert store.get("poison", "k") is not None
    assert sum(hurried) < 60 < sum(RETRY_SECONDS)
    log = ResultLog(tmp_path / "rows")
    monkeypatch.setattr(store_module.os, "fsync", Failing(os.fsync, 2, FULL))
    patiently(lambda: log.append({"key": "x", "spec": "s", "status": "done"}))
    assert [row["key"] for row in log.rows()] == ["x"]
    assert not list(store.path("poison", "k").parent.glob(".tmp-*"))


def test_a_disk_that_stays_full_is_an_error_after_all(
    store: Store, monkeypatch: pytest.MonkeyPatch, hurried: list[float]
) -> None:
    monkeypatch.setattr(store_module.os, "rename", Failing(None, 99, FULL))
    with pytest.raises(StoreError, match="No space left"):
        patiently(lambda: store.put("poison", "k", BUNDLE))
    assert tuple(hurried) == RETRY_SECONDS


def test_a_folder_that_may_not_be_written_is_not_waited_for(
    store: Store, monkeypatch: pytest.MonkeyPatch, hurried: list[float]
) -> None:
    refused = PermissionError(errno.EACCES, "Permission denied")
    monkeypatch.setattr(store_module.os, "rename", Failing(None, 99, refused))
    with pytest.raises(StoreError, match="Permission denied"):
        patiently(lambda: store.put("poison", "k", BUNDLE))
    assert hurried == []


def test_a_checkpoint_that_cannot_be_kept_stops_nobody(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(store_module.os, "rename", Failing(os.rename, 1, FULL))
    keeper = Checkpointer(CheckpointSlot(store, "t"), 0.0)
    keeper.save(lambda: BUNDLE)
    assert "no checkpoint: cannot write" in caplog.text
    keeper.save(lambda: BUNDLE)
    assert keeper.partial.load() is not None


def test_a_checkpoint_is_waited_for_while_its_store_is_away(
    store: Store, monkeypatch: pytest.MonkeyPatch, hurried: list[float]
) -> None:
    """Without it the work would begin anew; one that cannot be read at all is done without."""
    partial = CheckpointSlot(store, "t")
    partial.save(BUNDLE)
    monkeypatch.setattr(store, "get", Failing(store.get, 2, StoreError("away", passing=True)))
    assert partial.load() is not None
    assert hurried == list(RETRY_SECONDS[:2])
    monkeypatch.setattr(store, "get", Failing(store.get, 1, StoreError("denied")))
    assert partial.load() is None
    assert len(hurried) == 2


def test_checkpoints_are_rarer_where_they_cost_much(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now)
    keeper, saved = Checkpointer(CheckpointSlot(store, "t"), 30.0), []

    def slow() -> Bundle:
        nonlocal now
        saved.append(now)
        now += 3.0
        return BUNDLE

    while now < 200:
        now += 1.0
        keeper.save(slow)
    assert saved == [30.0, 93.0, 156.0]


def test_a_machine_that_leaves_keeps_the_state_first(store: Store) -> None:
    keeper = Checkpointer(CheckpointSlot(store, "t"), 3600.0, leaving=lambda: True)
    with pytest.raises(Moving):
        keeper.save(lambda: BUNDLE)
    assert keeper.partial.load() is not None


def test_a_driver_that_leaves_starts_no_job(store: Store) -> None:
    jobs = plan(["dots/lsp/none/small_cnn/sleeper/brief/0"], None).trials
    told, worker = Recorder(), Worker(store, leaving=lambda: True)
    with pytest.raises(Moving):
        run_inline(Agenda(jobs, lambda artifact: False), worker, told)
    assert (told.artifacts, told.rows) == ([], [])
    run_inline(Agenda(jobs, lambda artifact: False), Worker(store), told)
    assert [row.status for row in told.rows] == ["done"]


@pytest.mark.cluster
@pytest.mark.timeout(300)
def test_a_notice_that_tune_takes_for_itself_is_one_all_the_same(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tune ended with every job open, and the command with status 0: nothing queued it again."""
    from raygrid.engine.ray.evacuation import Evacuation

    def told(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)

    monkeypatch.setattr(Evacuation, "setup", told)
    before = signal.getsignal(signal.SIGUSR1)
    try:
        with pytest.raises(Moving):
            run_grid(
                ["dots/clean/none/small_cnn/supervised/brief/0"],
                replace(options, executor="ray", cpus=1, imports=("tests.plugin",)),
            )
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert list(ResultLog(options.out / "results.jsonl").rows()) == []
    assert not notice.given()


class Metadata(BaseHTTPRequestHandler):
    """What a cloud answers on a machine of its own."""

    answers: ClassVar[dict[str, str]] = {}

    def _answer(self) -> None:
        text = self.answers.get(self.path)
        needs = "X-aws-ec2-metadata-token" if "spot" in self.path else "Metadata-Flavor"
        allowed = self.command == "PUT" or needs in self.headers
        self.send_response(404 if text is None or not allowed else 200)
        self.end_headers()
        self.wfile.write((text or "").encode())

    do_GET = do_PUT = _answer  # noqa: N815

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def cloud() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Metadata)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


AWS = {"/latest/api/token": "t", "/latest/meta-data/spot/instance-action": '{"action":"stop"}'}
GCP = "/computeMetadata/v1/instance/preempted"


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ({}, False),
        ({"/latest/api/token": "t"}, False),
        (AWS, True),
        ({GCP: "FALSE"}, False),
        ({GCP: "TRUE"}, True),
    ],
)
def test_the_clouds_notice_is_understood(
    cloud: str, answers: dict[str, str], told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    from raygrid.engine.ray.preemption import reclaimed

    monkeypatch.setattr(Metadata, "answers", answers)
    assert reclaimed(cloud) is told


def test_a_job_without_progress_gets_one_try_more(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    from raygrid.engine.ray import callbacks as booking

    killed: list[Any] = []
    now = 0.0
    monkeypatch.setattr(booking.ray, "kill", killed.append)
    monkeypatch.setattr(booking, "time", SimpleNamespace(monotonic=lambda: now))
    book: Any = SimpleNamespace(open={"k": SimpleNamespace(seconds=2.0)}, reasons={})
    dog = booking.Watchdog(book, 30.0)
    trial: Any = SimpleNamespace(
        trial_id="1",
        config={"key": "k"},
        temporary_state=SimpleNamespace(ray_actor="a"),
        max_failures=8,
        run_metadata=SimpleNamespace(num_failures=0),
    )
    dog.on_trial_start(0, [], trial)
    for now in (20.0, 40.0):  # noqa: B007
        dog.on_trial_result(0, [], trial, {})
        dog.on_step_end(0, [])
    assert killed == []
    now = 71.0
    dog.on_step_end(0, [])
    assert (killed, trial.max_failures) == (["a"], 8)
    trial.run_metadata.num_failures = 1
    dog.on_trial_recover(0, [], trial)
    dog.on_step_end(0, [])
    dog.on_trial_start(0, [], trial)
    now = 102.0
    dog.on_step_end(0, [])
    assert (killed, trial.max_failures) == (["a", "a"], 1)
    assert book.reasons == {"k": "no progress for 31 s, twice"}
    patient = booking.Watchdog(book, None)
    assert patient._patience(book.open["k"]) == booking.HOUR
    days: Any = SimpleNamespace(seconds=3 * booking.HOUR)
    assert patient._patience(days) == 30 * booking.HOUR
    assert dog._patience(days) == 30.0


def test_what_trials_of_a_lost_poison_read_is_freed_with_the_last_trial() -> None:
    """Their dataset stayed in the cluster's memory to the end of the run."""
    pytest.importorskip("ray")
    from raygrid.engine.costs.gpu_share import Sharing
    from raygrid.engine.costs.profiles import Profiles
    from raygrid.engine.ray.callbacks import AgendaCallback

    spec = "photo_digits/{}/standard/small_cnn/supervised/quick/0"
    lost, other = plan([spec.format("em"), spec.format("noise")], None).trials
    agenda, freed = Agenda([lost, other], lambda artifact: False), list[str]()
    book = AgendaCallback(agenda, Recorder(), Sharing(Profiles(), "A10G"), freed.extend)
    broken = SimpleNamespace(config={"key": lost.poison.key})
    outcome = {"state": "failed", "error": "it broke"}
    book.on_trial_result(0, [], broken, {"artifact": json.dumps(outcome)})
    assert freed == [lost.poison.key]
    row = Result(str(other.spec), other.key, status="done").row()
    book.on_trial_result(
        0, [], SimpleNamespace(config={"key": other.key}), {"row": json.dumps(row)}
    )
    assert set(freed) == {artifact.key for t in (lost, other) for artifact in t.artifacts}
    assert len(freed) == len(set(freed))


def test_memory_that_once_ran_out_does_not_count_against_later_failures(tmp_path: Path) -> None:
    """A whole GPU that was too small gets one try more; a lost node is no lack of memory."""
    pytest.importorskip("ray")
    from ray.tune import PlacementGroupFactory

    from raygrid.engine.ray import callbacks as booking

    file = tmp_path / "error.txt"
    book: Any = SimpleNamespace(
        open={}, faults={}, on_trial_recover=booking.AgendaCallback.on_trial_recover
    )
    trial: Any = SimpleNamespace(
        error_file=str(file),
        config={"key": "an artifact"},
        placement_group_factory=PlacementGroupFactory([{"CPU": 1.0, "GPU": 0.5}]),
        max_failures=8,
        run_metadata=SimpleNamespace(num_failures=1),
    )
    trial.update_resources = lambda larger: setattr(trial, "placement_group_factory", larger)

    def fails(text: str) -> tuple[float, int]:
        with file.open("a") as log:
            log.write(f"Failure # 1 (occurred at noon)\n{text}\n")
        book.on_trial_recover(book, 0, [], trial)
        return trial.placement_group_factory.bundles[0]["GPU"], trial.max_failures

    assert fails("CUDA out of memory") == (1.0, 8)
    assert fails("The node has died") == (1.0, 8)
    assert fails("CUDA out of memory") == (1.0, 1)


@pytest.mark.parametrize(
    ("had", "fault", "error", "why", "gets"),
    [
        (0.5, None, "The node has died", "its worker was lost", 0.5),
        (0.5, "CUDA error", "The node has died", "its GPU failed: CUDA error", 1.0),
        (0.25, None, "CUDA out of memory", "out of memory with 0.25 of a GPU", 0.75),
        (1.0, None, "CUDA out of memory", "out of memory with 1 of a GPU", 1.0),
    ],
)
def test_a_job_that_is_tried_again_says_why_and_gets_more_where_it_lacked(
    had: float, fault: str | None, error: str, why: str, gets: float, tmp_path: Path
) -> None:
    """A kind that has outgrown its share starts from what is thought of it by now."""
    pytest.importorskip("ray")
    from ray.tune import PlacementGroupFactory

    from raygrid.engine.ray import callbacks as booking

    (tmp_path / "error.txt").write_text(f"Failure # 1 (occurred at noon)\n{error}\n")
    told: list[tuple[Any, ...]] = []
    book: Any = SimpleNamespace(
        open={"k": SimpleNamespace(label="a trial", work="its work")},
        faults={"k": fault} if fault else {},
        listener=SimpleNamespace(retried=lambda *words: told.append(words)),
        sharing=SimpleNamespace(ran_out=lambda *had: told.append(had), share=lambda work: 0.75),
    )
    trial: Any = SimpleNamespace(
        error_file=str(tmp_path / "error.txt"),
        config={"key": "k"},
        placement_group_factory=PlacementGroupFactory([{"CPU": 1.0, "GPU": had}]),
        max_failures=8,
        run_metadata=SimpleNamespace(num_failures=1),
    )
    trial.update_resources = lambda larger: setattr(trial, "placement_group_factory", larger)
    booking.AgendaCallback.on_trial_recover(book, 0, [], trial)
    outgrown = [("its work", had)] if "memory" in error and had < 1 else []
    assert told == [("a trial", why), *outgrown]
    assert trial.placement_group_factory.bundles[0]["GPU"] == gets
    assert trial.max_failures == (1 if "memory" in error and had == 1 else 8)


def test_workers_report_less_often_to_a_driver_that_is_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("ray")
    from raygrid.core.device import Meter
    from raygrid.engine.ray import worker

    now, takes, told = 100.0, 0.0, list[float]()

    def report(**_: str) -> None:
        nonlocal now
        told.append(now)
        now += takes

    monkeypatch.setattr(worker, "node_name", lambda: "here")
    monkeypatch.setattr(worker, "tell", report)
    monkeypatch.setattr(worker, "time", SimpleNamespace(monotonic=lambda: now))
    meter = Meter(torch.device("cpu"))
    slow = ((0.0, 120.0, 1.0), (0.5, 200.0, 10.0), (9.0, 800.0, 60.0))
    patient, hurried = worker.Reporter(meter), worker.Reporter(meter, deadline=80.0)
    for reporter, (takes, until, gap) in (  # noqa: B007
        *((patient, case) for case in slow),
        (hurried, (9.0, 1200.0, 20.0)),  # a job that may be silent for 80 s
    ):
        told.clear()
        while now < until:
            reporter({"epoch": 1.0})
            now += 0.25
        gaps = [b - a for a, b in itertools.pairwise(told[1:])]
        assert gaps == pytest.approx([gap] * len(gaps), abs=0.5)
        assert gaps


def test_of_equal_trials_the_one_goes_first_whose_artifacts_are_there() -> None:
    """Two nodes, one poison each; a free worker takes what its node has, but rank comes first."""
    pytest.importorskip("ray")
    from raygrid.engine.costs.gpu_share import Sharing
    from raygrid.engine.costs.profiles import Profiles
    from raygrid.engine.ray.queue import LongestFirst

    reads = {"a": ("p",), "b": ("q",), "c": ("p",), "d": ("q",), "long": ("q",)}
    jobs = {k: SimpleNamespace(rank=2.0 if k == "long" else 1.0, reads=r) for k, r in reads.items()}
    trials = {k: SimpleNamespace(config={"key": k}, placement_group_factory="pg") for k in reads}
    cache = SimpleNamespace(_cached_objects={"pg": ["worker"]}, has_cached_object=lambda pg: True)
    held = {id(trials["a"]): "worker", id(trials["b"]): "other"}
    actors = SimpleNamespace(get=lambda trial: held.get(id(trial)))
    inner = SimpleNamespace(_actor_cache=cache, _trial_to_actor=actors, _pending_trials=[])
    tune: Any = SimpleNamespace(_tune_controller=inner)
    agenda: Any = SimpleNamespace(jobs=jobs)
    first = LongestFirst(agenda, Sharing(Profiles()))
    first.on_trial_result(tune, trials["a"], {"node": "1"})
    first.on_trial_result(tune, trials["b"], {"node": "2"})
    held.clear()
    inner._pending_trials = [trials["d"], trials["c"]]
    assert first.choose_trial_to_run(tune) is trials["c"]
    cache._cached_objects["pg"] = ["other", "worker"]
    assert first.choose_trial_to_run(tune) is trials["d"]
    inner._pending_trials.append(trials["long"])
    cache._cached_objects["pg"] = ["worker"]
    assert first.choose_trial_to_run(tune) is trials["long"]
