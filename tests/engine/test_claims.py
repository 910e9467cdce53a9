"""What a driver does that has lost its trials to another one, or its terminal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raygrid.api.run_grid import Options, run_grid
from raygrid.core.errors import StoreError
from raygrid.engine.events import Listener, Listeners
from raygrid.storage import leases
from raygrid.storage.results import ResultLog
from raygrid.tracking.journal import Journal
from raygrid.trials.trial import Trial
from tests import faulty

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
    monkeypatch.setattr(leases, "BEAT", 0.05)
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


def test_all_listeners_are_closed_whatever_one_of_them_meets(tmp_path: Path) -> None:
    """A display on a closed terminal cannot print its last line."""

    class Mute(Listener):
        def close(self, interrupted: bool) -> None:
            raise OSError(5, "Input/output error")

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
    end = time.monotonic() + 120
    while not (tmp_path / "marks").exists() and driver.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    driver.send_signal(signal.SIGHUP)
    _, said = driver.communicate(timeout=120)
    assert driver.returncode == (0 if ignored else 130), said
    assert ("stopped; what is finished is kept" in said) is not ignored
    assert list((tmp_path / "out" / "store" / "claims").iterdir()) == []
    last = (tmp_path / "out" / "grids.jsonl").read_text().splitlines()[-1]
    assert ('"FINISHED"' if ignored else '"KILLED"') in last
