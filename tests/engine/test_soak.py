"""The soak finds what is wrong with a round, says which faults did not strike, and passes."""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raygrid.storage.results import ResultLog
from raygrid.tracking.mlflow import store_uri, sync
from raygrid.tracking.mlflow.client import KEY_TAG, PARENT_TAG, MlflowExperiment
from tests.tracking.tracked import planned, row

pytest.importorskip("ray")
BENCHMARKS = Path(__file__).parents[2] / "experiments" / "benchmarks"
EPOCHS = 3


@pytest.fixture(scope="module")
def script() -> Iterator[SimpleNamespace]:
    """The modules of the script, which are no package."""
    names = {"main": "soak", "rounds": "soaking.rounds", "faults": "soaking.faults"}
    names["judge"] = "soaking.findings"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield SimpleNamespace(**{k: importlib.import_module(v) for k, v in names.items()})


def mark(trial: int, event: str, epoch: int, at: float) -> dict[str, Any]:
    return {"trial": trial, "event": event, "epoch": epoch, "at": at, "pid": 1}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path) -> Path:
    """The output of two trials, in MLflow too; that takes a second."""
    out = tmp_path_factory.mktemp("soaked")
    (out / "mlflow.db").write_bytes(mlflow_template.read_bytes())
    for number, trial in enumerate(planned().trials[:2], 1):
        made = row(trial, epochs=EPOCHS)
        spec = made.spec.replace("supervised", f"marked(trial={number})")
        ResultLog(out / "results.jsonl").append(replace(made, spec=spec).row())
    sync(out)
    return out


class Whole:
    """A round of two trials that has all it must have."""

    def __init__(self, folder: Path, finished: Path, script: SimpleNamespace) -> None:
        self.round = script.rounds.Round(folder, folder / "disk", 0.0, random.Random(0))
        self.out: Path = self.round.out
        shutil.copytree(finished, self.out)
        self.judge = script.judge
        self.reference = script.judge.rows_of(self.out)
        self.finished = min(each["finished"] for each in self.reference.values())
        self.marks: list[dict[str, Any]] = []
        for number in (1, 2):
            self.marks += [mark(number, "epoch", e, self.finished - 9 + e) for e in range(EPOCHS)]
            self.marks.append(mark(number, "end", EPOCHS, self.finished - 1))

    def findings(self) -> list[str]:
        lines = "".join(json.dumps(each) + "\n" for each in self.marks)
        self.round.marks.write_text(lines)
        return list(self.judge.findings(self.round, self.reference, grace=0.0))

    def runs(self) -> tuple[MlflowExperiment, list[Any]]:
        experiment = MlflowExperiment.of(self.out, store_uri(self.out))
        return experiment, sorted(experiment.search(), key=lambda run: PARENT_TAG in run.data.tags)


@pytest.fixture
def whole(tmp_path: Path, finished: Path, script: SimpleNamespace) -> Whole:
    return Whole(tmp_path, finished, script)


def duplicated_row(made: Whole) -> str:
    spec, one = next(iter(made.reference.items()))
    ResultLog(made.out / "results.jsonl").append(one)
    return f"{spec} has 2 rows that say done"


def lost_row(made: Whole) -> str:
    *kept, _ = (made.out / "results.jsonl").read_text().splitlines(keepends=True)
    (made.out / "results.jsonl").write_text("".join(kept))
    return f"{list(made.reference)[-1]} has 0 rows that say done"


def other_row(made: Whole) -> str:
    path = made.out / "results.jsonl"
    path.write_text(path.read_text().replace('"final_acc": 0.3', '"final_acc": 0.4', 1))
    return f"{next(iter(made.reference))} has another row"


def trained_anew(made: Whole) -> str:
    """The worker came to the end unheard, and another one began: there is one row all the same."""
    made.marks[0:0] = [
        mark(1, "epoch", 0, made.finished - 30),
        mark(1, "end", 3, made.finished - 20),
    ]
    return "trial 1 was trained to its end and then 1 times anew"


def trained_on(made: Whole) -> str:
    made.marks.append(mark(2, "epoch", 2, made.finished + 5))
    return "trial 2 went on for 1 marks after its row was made"


def never_trained(made: Whole) -> str:
    made.marks = [each for each in made.marks if each["trial"] == 1]
    return "trial 2 has a row and was never trained to its end"


def running_parent(made: Whole) -> str:
    experiment, (parent, *_) = made.runs()
    experiment.client.update_run(parent.info.run_id, status="RUNNING")
    return f"MLflow's run {parent.info.run_name} is RUNNING"


def second_run(made: Whole) -> str:
    experiment, (_, child, *_) = made.runs()
    again = experiment.client.create_run(experiment.id, tags=child.data.tags)
    experiment.client.update_run(again.info.run_id, status="FINISHED")
    return f"MLflow has 2 runs of {child.data.tags[KEY_TAG][:12]}"


def second_parent(made: Whole) -> str:
    experiment, _ = made.runs()
    again = experiment.client.create_run(experiment.id)
    experiment.client.update_run(again.info.run_id, status="FINISHED")
    return "MLflow has 2 parents"


Defect = Callable[[Whole], str]
DEFECTS: tuple[Defect, ...] = (
    *(duplicated_row, lost_row, other_row, trained_anew, trained_on, never_trained),
    *(running_parent, second_run, second_parent),
)


@pytest.mark.slow
def test_a_whole_round_has_no_findings(whole: Whole) -> None:
    assert whole.findings() == []


@pytest.mark.slow
@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.__name__)
def test_a_defect_is_found(whole: Whole, defect: Defect) -> None:
    assert defect(whole) in whole.findings()


@pytest.mark.slow
def test_a_trial_that_goes_on_from_its_checkpoint_is_no_finding(whole: Whole) -> None:
    """Its worker was lost after two epochs, and after the last one, before its row was written."""
    at = whole.finished - 30
    cut = [mark(1, "epoch", 0, at), mark(1, "epoch", 1, at), mark(1, "epoch", 1, at)]
    whole.marks = [*cut, mark(1, "epoch", 2, at), mark(1, "end", 3, at), *whole.marks[2:]]
    assert whole.findings() == []


@pytest.mark.slow
def test_a_process_that_is_left_is_found_and_ended(whole: Whole) -> None:
    env = {**os.environ, "RAY_TMPDIR": str(whole.round.folder / "ray")}
    left = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=env)
    try:
        (found,) = whole.findings()
        assert found.startswith(f"process {left.pid} (")
        assert left.wait(30) == -9
    finally:
        left.kill()
        left.communicate()


def test_faults_that_did_not_strike_are_named(
    tmp_path: Path, script: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first driver is killed, the second ends well before the last fault is due."""
    monkeypatch.setattr(script.main, "PATIENCE", 0.1)

    class Brief(script.rounds.Round):  # type: ignore[misc, name-defined]
        def start(self) -> None:
            seconds = 0.5 if self.statuses else 60
            self.driver = subprocess.Popen(["sleep", str(seconds)])

    made = Brief(tmp_path, tmp_path / "disk", 0.0, random.Random(0))
    faults = script.faults
    due = [
        (0.1, faults.database_locked),
        (0.1, faults.driver_killed),
        (60.0, faults.worker_killed),
        (0.1, faults.store_full),
    ]
    started = time.monotonic()
    assert list(script.main.soak(made, due)) == []
    assert time.monotonic() - started < 30
    assert made.struck == ["driver_killed"]
    assert made.missed == [
        "database_locked (nothing to strike)",
        "worker_killed (the grid was through)",
        "store_full (the grid was through)",
    ]
    assert script.main.line(made, 3.0, []) == (
        "driver_killed; not struck: database_locked (nothing to strike), worker_killed (the grid "
        "was through), store_full (the grid was through); drivers ended with -9, 0; 3 s; as "
        "undisturbed"
    )


def test_drivers_that_never_end_well_are_a_finding(
    tmp_path: Path, script: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(script.rounds.Round):  # type: ignore[misc, name-defined]
        def start(self) -> None:
            self.driver = subprocess.Popen(["false"])

    monkeypatch.setattr(script.main, "ATTEMPTS", 3)
    made = Failing(tmp_path, tmp_path / "disk", 0.0, random.Random(0))
    assert list(script.main.soak(made, [])) == ["3 drivers one after the other did not end well"]
    assert made.statuses == [1, 1, 1]


@pytest.mark.cluster
@pytest.mark.timeout(1800)
def test_a_round_under_faults_is_as_undisturbed() -> None:
    command = [sys.executable, str(BENCHMARKS / "soak.py"), "--minutes", "0", "--pause", "2"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=BENCHMARKS.parents[1])
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "undisturbed: 12 trials" in done.stdout
    assert "1 rounds, 0 with findings" in done.stdout.splitlines()[-1]
