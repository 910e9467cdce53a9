"""What a driver does that has lost its trials to another one, or its terminal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raygrid.api.run_grid import Options, run_grid
from raygrid.core.errors import StoreError
from raygrid.engine.events import Listener, Listeners
from raygrid.engine.ray.leftovers import end_leftovers
from raygrid.storage import claims
from raygrid.storage.machine import born, machine
from raygrid.storage.results import ResultLog
from raygrid.tracking.journal import Journal
from raygrid.trials.trial import Trial
from tests import faulty
from tests.engine.toys import Mute

pytestmark = pytest.mark.usefixtures("undrawn")

ROOT = Path(__file__).parents[2]
SPECS = [f"dots/clean/none/small_cnn/paced(tag={tag})/paces/0" for tag in (1, 2)]


class Thief(Listener):
    """Takes the claim away in the first trial, as a driver does that holds this one for dead."""

    def __init__(self, claims: Path) -> None:
        self.claims = claims
        self.started_trials = 0
        self.closed: list[bool] = []

    def trial_started(self, trial: Trial) -> None:
        self.started_trials += 1

    def epoch(self, trial: Trial, metrics: dict[str, float]) -> None:
        for note in self.claims.glob("*.json"):
            note.unlink()
        time.sleep(0.2)

    def close(self, interrupted: bool) -> None:
        self.closed.append(interrupted)


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Options:
    monkeypatch.setattr(claims, "BEAT_SECONDS", 0.05)
    monkeypatch.setenv(faulty.FOLDER, str(tmp_path))
    return Options(out=tmp_path / "out", data=tmp_path, executor="inline")


@pytest.mark.parametrize("executor", ["inline", pytest.param("ray", marks=pytest.mark.cluster)])
def test_a_driver_that_lost_its_claim_stops_with_a_line(options: Options, executor: Any) -> None:
    """R5: it ran on to the end beside the one that had taken over."""
    thief = Thief(options.out / "store" / "claims")
    with pytest.raises(StoreError, match="another one took over its trials"):
        run_grid(
            SPECS, replace(options, executor=executor, cpus=1, imports=("tests.faulty",)), thief
        )
    assert thief.started_trials == 1
    assert thief.closed == [True]
    assert list(ResultLog(options.out / "results.jsonl").rows()) == []
    assert '"KILLED"' in (options.out / "grids.jsonl").read_text()


def test_what_another_driver_finished_before_the_claim_is_not_run_again(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looked at the rows, saw one missing, and waited for its claim while the other ended."""
    monkeypatch.setenv("RAYGRID_CACHE", str(tmp_path / "cache"))
    options = replace(options, store=(tmp_path / "far").as_uri())
    spec, thief = "dots/clean/none/small_cnn/sleeper/brief/0", Thief(tmp_path)
    with monkeypatch.context() as patch:

        def late(*held: Any) -> Any:
            patch.undo()
            other = run_grid([spec], replace(options, out=tmp_path / "other"))
            assert (other.submitted, other.failed) == (1, [])
            return claims.claimed(*held)

        patch.setattr("raygrid.api.run_grid.claimed", late)
        outcome = run_grid([spec], options, thief)
    assert (outcome.submitted, thief.started_trials) == (0, 0)
    assert [row.status for row in outcome.results] == ["done"]


def test_all_listeners_are_closed_whatever_one_of_them_meets(tmp_path: Path) -> None:
    """A display on a closed terminal cannot print its last line."""
    journal = Journal(tmp_path, "grid")
    thief = Thief(tmp_path)
    journal.grid = "g"
    with pytest.raises(OSError, match="Input/output"):
        Listeners(Mute(), journal, thief).close(True)
    assert thief.closed == [True]
    assert '"KILLED"' in (tmp_path / "grids.jsonl").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("ignored", [False, True], ids=["closed terminal", "nohup"])
def test_a_closed_terminal_ends_a_run_as_a_signal_to_end_does(
    tmp_path: Path, ignored: bool
) -> None:
    """R9: the driver was gone at once, its claim and its grid's state left as they were."""
    env = {**os.environ, faulty.FOLDER: str(tmp_path), faulty.PAUSE: "0.1" if ignored else "3"}
    words = ["run", SPECS[0], "--import", "tests.faulty", "--executor", "inline", "--quiet"]
    words += ["--tracking", "off", "--out", str(tmp_path / "out"), "--data", str(tmp_path)]
    driver = subprocess.Popen(
        [sys.executable, "-m", "raygrid", *words],
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=(lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) if ignored else None,
    )
    until((tmp_path / "marks").exists, driver)
    driver.send_signal(signal.SIGHUP)
    _, said = driver.communicate(timeout=120)
    assert driver.returncode == (0 if ignored else 130), said
    assert ("stopped; what is finished is kept" in said) is not ignored
    assert list((tmp_path / "out" / "store" / "claims").iterdir()) == []
    last = (tmp_path / "out" / "grids.jsonl").read_text().splitlines()[-1]
    assert ('"FINISHED"' if ignored else '"KILLED"') in last


@pytest.mark.cluster
def test_what_a_killed_driver_leaves_of_ray_is_ended_by_the_next(tmp_path: Path) -> None:
    """R12: its processes lived on for up to two minutes, beside those of the next run."""
    import psutil

    env = {**os.environ, faulty.FOLDER: str(tmp_path), faulty.PAUSE: "2"}
    env["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="rl")
    words = ["run", SPECS[0], "--import", "tests.faulty", "--executor", "ray", "--cpus", "1"]
    words += ["--quiet", "--tracking", "off", "--out", str(tmp_path / "out")]
    words += ["--data", str(tmp_path), "--address", "local"]
    command = [sys.executable, "-m", "raygrid", *words]
    driver = subprocess.Popen(command, cwd=ROOT, env=env)
    until((tmp_path / "marks").exists, driver)
    left = psutil.Process(driver.pid).children(recursive=True)
    noted = json.loads((tmp_path / "out" / ".ray.json").read_text())["started"]
    assert len(noted) >= 3
    driver.kill()
    driver.wait()
    (tmp_path / "marks").unlink()
    env[faulty.PAUSE] = "0"
    again = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=200, check=False
    )
    assert again.returncode == 0, again.stderr
    assert "processes of Ray were left by a run that was killed; ended" in again.stderr
    assert not [p for p in left if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    assert not (tmp_path / "out" / ".ray.json").exists()


@pytest.mark.cluster
def test_a_ray_of_this_machine_that_lost_its_node_ends_the_run(tmp_path: Path) -> None:
    """The driver waited for another node for good."""
    pytest.importorskip("ray")  # which brings psutil along
    import psutil

    (tmp_path / "hold-1").touch()
    env = {**os.environ, faulty.FOLDER: str(tmp_path), "RAY_TMPDIR": tempfile.mkdtemp(prefix="rl")}
    words = ["run", SPECS[0], "--import", "tests.faulty", "--executor", "ray", "--cpus", "1"]
    words += ["--quiet", "--tracking", "off", "--out", str(tmp_path / "out")]
    words += ["--data", str(tmp_path), "--address", "local"]
    driver = subprocess.Popen(
        [sys.executable, "-m", "raygrid", *words],
        cwd=ROOT,
        env=env,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    until((tmp_path / "marks").exists, driver)
    (raylet,) = (p for p in psutil.Process(driver.pid).children() if p.name() == "raylet")
    raylet.kill()
    _, said = driver.communicate(timeout=300)
    assert driver.returncode == 2, said
    assert "raygrid: Ray's node on this machine has ended" in said
    assert "Traceback" not in said


def until(found: Callable[[], object], driver: subprocess.Popen[Any]) -> None:
    """Wait for progress, for as long as the driver lives."""
    while not found():
        assert driver.poll() is None, "the driver ended"
        time.sleep(0.05)


def test_no_process_is_ended_that_only_has_the_number_of_another(tmp_path: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = [[stranger.pid, "1"], [stranger.pid, ""], [1, "5"], [-1, "5"], ["x", "5"]]
    for driver, entry in [([2**30, "1"], e) for e in started] + [
        ([os.getpid(), born(os.getpid())], [stranger.pid, born(stranger.pid)])
    ]:
        note = {"machine": machine(), "driver": driver, "started": [entry]}
        (tmp_path / ".ray.json").write_text(json.dumps(note))
        assert end_leftovers(tmp_path) == 0
    assert stranger.poll() is None
    note["driver"] = [2**30, "1"]
    (tmp_path / ".ray.json").write_text(json.dumps(note))
    assert end_leftovers(tmp_path) == 1
    assert stranger.wait(10) == -signal.SIGKILL
    assert stranger.stdin is not None
    stranger.stdin.close()
    assert not (tmp_path / ".ray.json").exists()
