"""`raygrid status`: what a run says of itself while it goes on and afterwards."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raygrid.api.run_grid import Options, run_grid
from raygrid.cli.main import main
from raygrid.core.errors import DataError
from raygrid.engine.events import Listener
from raygrid.engine.grid import Plan
from raygrid.tracking import status
from raygrid.tracking.counts import RunCounts
from raygrid.tracking.status import SILENT_SECONDS, StatusFile
from raygrid.trials.artifacts.shards import split
from raygrid.trials.resolve import resolve
from raygrid.trials.result import Result
from raygrid.trials.trial import Trial
from tests import plugin

pytestmark = pytest.mark.usefixtures("undrawn")

assert plugin.CARD
SPECS = [f"dots/{attack}/none/small_cnn/supervised/brief/0" for attack in ("clean", "slow_shift")]


class Onlooker(Listener):
    """Reads the file whenever an epoch ends."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.seen: list[dict[str, object]] = []

    def epoch(self, trial: Trial, metrics: dict[str, float]) -> None:
        self.seen.append(status.read_status(self.out))


def test_a_run_is_followed_from_outside(options: Options) -> None:
    onlooker = Onlooker(options.out)
    run_grid(SPECS, options, StatusFile(options.out, every=0.0), onlooker)
    assert len(onlooker.seen) == 4
    first, last = onlooker.seen[0], onlooker.seen[-1]
    assert (first["state"], first["trials"], first["done"], first["queued"]) == ("running", 2, 0, 1)
    assert (last["done"], last["queued"]) == (1, 0)
    (job,) = last["running"]  # type: ignore[misc]
    assert (job["what"], job["epoch"], job["epochs"]) in {(spec, 2, 2) for spec in SPECS}
    end = status.read_status(options.out)
    assert (end["state"], end["done"], end["failed"], end["running"]) == ("finished", 2, 0, [])
    assert end["artifacts"] == {"made": 1, "reused": 1}  # the data were looked at for the plan
    assert end["trials_per_hour"] > 0


def test_a_second_run_counts_what_is_done(options: Options) -> None:
    run_grid(SPECS[:1], options, StatusFile(options.out))
    run_grid(SPECS, options, StatusFile(options.out))
    assert status.read_status(options.out)["done"] == 2


def test_silence_and_an_interruption_have_names(tmp_path: Path) -> None:
    clock = [1000.0]
    beacon = StatusFile(tmp_path, now=lambda: clock[0])
    beacon.write()
    assert status.read_status(tmp_path, now=1000 + SILENT_SECONDS)["state"] == "running"
    assert status.read_status(tmp_path, now=1001 + SILENT_SECONDS)["state"] == "lost"
    assert status.status_text(status.read_status(tmp_path, now=2000)).endswith(
        "no sign of life from the driver for a minute; run the same command again to resume"
    )
    beacon.close(interrupted=True)
    assert status.read_status(tmp_path, now=9999)["state"] == "interrupted"


def test_it_is_not_written_more_often_than_asked(tmp_path: Path) -> None:
    clock = [1000.0]
    beacon = StatusFile(tmp_path, every=2.0, now=lambda: clock[0])
    beacon.write()
    before = (tmp_path / "status.json").stat().st_mtime_ns
    clock[0] += 1.9
    beacon.tick()
    assert (tmp_path / "status.json").stat().st_mtime_ns == before
    clock[0] += 0.1
    beacon.tick()
    assert json.loads((tmp_path / "status.json").read_text())["written"] == 1002.0


def written(path: Path, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What the file says once it says so; its last word after ten seconds."""
    end = time.monotonic() + 10
    while not wanted(found := status.read_status(path)) and time.monotonic() < end:
        time.sleep(0.02)
    return found


def test_shards_that_start_together_are_all_listed_though_no_event_follows(tmp_path: Path) -> None:
    """Events come faster than the file is written; the last ones stood in none for an hour."""
    pieces = split(resolve("cifar10/lsp/none/resnet18/supervised/dvae/0", None).poison, 3).needs()
    kept = StatusFile(tmp_path, every=0.5)
    kept.started(Plan(), [])
    for piece in pieces:
        kept.artifact(piece, "making", {})
    kept.placed(pieces[2].key, "10.0.0.3")
    found = written(tmp_path, lambda said: len(said["running"]) == 3)
    kept.close(interrupted=False)
    labels = [f"shard {number} of 3 of lsp on cifar10" for number in (1, 2, 3)]
    assert [job["what"] for job in found["running"]] == labels
    assert [job["where"] for job in found["running"]] == ["", "", "10.0.0.3"]


def test_a_run_without_events_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "ALIVE_SECONDS", 0.1)
    assert status.ALIVE_SECONDS < SILENT_SECONDS
    kept = StatusFile(tmp_path, every=0.05)
    kept.started(Plan(), [])
    first = status.read_status(tmp_path)["written"]
    later = written(tmp_path, lambda said: said["written"] > first)
    kept.close(interrupted=True)
    assert later["written"] >= first + 0.1
    assert later["state"] == "running"
    end = status.read_status(tmp_path)
    time.sleep(0.3)
    assert status.read_status(tmp_path) == end
    assert end["state"] == "interrupted"


def test_jobs_are_listed_by_place_and_the_cost_is_said() -> None:
    found = {
        **{"state": "running", "host": "head", "pid": 7, "written": 7200.0, "started": 3600.0},
        **{"trials": 9, "done": 3, "failed": 1, "queued": 4, "trials_per_hour": 3.0},
        **{"seconds_left": 125.0, "artifacts": {"made": 2, "reused": 1}},
        "running": [
            {"what": "poison em", "where": "10.0.0.2 GPU 0", "since": 7140.0},
            {"what": "a/b", "where": "10.0.0.2 GPU 0", "since": 7000.0, "epoch": 2, "epochs": 9},
        ],
    }
    lines = status.status_text(found, price=1.5, devices=2).splitlines()
    assert "3 of 9 trials done, 1 failed, 4 queued; artifacts 2 made, 1 reused" in lines
    assert "3 trials an hour, 2:05 left" in lines
    assert "$3.00 so far: 2 devices at $1.50 an hour each" in lines
    assert lines[-3:] == ["10.0.0.2 GPU 0:", "  poison em  1:00", "  a/b  epoch 2/9  3:20"]
    found["running"][0]["share"] = 0.345
    assert "  poison em  34 %  1:00" in status.status_text(found).splitlines()
    del found["running"][0]["share"]
    found["running"][0]["where"] = ""  # has not reported yet
    lines = status.status_text(found).splitlines()
    assert lines[-2:] == ["place not told yet:", "  poison em  1:00"]
    found["running"][1]["where"] = ""
    assert "here:" in status.status_text(found).splitlines()


def test_the_command_prints_it(options: Options, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match="--out"):
        status.read_status(options.out)
    run_grid(SPECS[:1], options, StatusFile(options.out))
    assert main(["status", "--out", str(options.out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["done"] == 1
    assert main(["status", "--out", str(options.out)]) == 0
    assert "1 of 1 trials done" in capsys.readouterr().out


def test_drivers_that_go_on_are_seen_before_what_was_gathered_once(tmp_path: Path) -> None:
    said = {"state": "finished", "host": "h", "pid": 1, "written": 100.0}
    for folder, written in ((".", 100.0), ("drivers/0", 90.0), ("drivers/1", 95.0)):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        text = json.dumps({**said, "written": written})
        (tmp_path / folder / "status.json").write_text(text)
    assert set(status.read_all(tmp_path)) == {""}
    text = json.dumps({**said, "state": "running", "written": 200.0})
    (tmp_path / "drivers" / "1" / "status.json").write_text(text)
    assert set(status.read_all(tmp_path)) == {"0", "1"}


def test_a_job_that_lost_its_worker_waits_and_derived_rows_fail_with_their_trial() -> None:
    trial = resolve(SPECS[0], None)
    counts = RunCounts()
    counts.started(Plan(trials=[trial]), [trial])
    counts.trial_started(trial)
    counts.retried(str(trial.spec), "its worker was lost")
    assert counts.running == []
    counts.trial_finished(trial, Result(str(trial.spec), trial.key, status="failed"))
    derived = Result("iss", "other", status="failed", derived_from=trial.key)
    counts.trial_finished(trial, derived)
    assert counts.line().startswith("1/1 trials, 1 failed")


def test_what_diverged_is_a_result_and_no_failure() -> None:
    """A failed trial runs again with the next run and ends a command with 1; it does neither."""
    trials = [resolve(spec, None) for spec in SPECS[:2]]
    counts = RunCounts()
    counts.started(Plan(trials=trials), trials)
    for trial, state in zip(trials, ("failed", "diverged"), strict=True):
        counts.trial_finished(trial, Result(str(trial.spec), trial.key, status=state))
    assert counts.line().startswith("2/2 trials, 1 failed, 1 diverged, artifacts")
