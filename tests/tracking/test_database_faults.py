"""MLflow's database goes away or is spoiled in the middle of a run; few files may be open."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import faulty
from tests.patience import until
from tests.tracking.test_mlflow import children, parents

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
SPECS = [f"dots/clean/none/small_cnn/paced(tag={tag})/paces/0" for tag in (1, 2)]


def deleted(out: Path) -> None:
    for file in out.glob("mlflow.db*"):
        file.unlink()


def spoiled(out: Path) -> None:
    (out / "mlflow.db").write_bytes(b"no database" * 1000)


def few_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))


def drive(folder: Path, *, limit: Callable[[], None] | None = None) -> subprocess.Popen[str]:
    """A run of two trials in a process of its own, inline."""
    (folder / "faults").mkdir(exist_ok=True)
    own = {faulty.FOLDER: str(folder / "faults"), faulty.PAUSE: "0.1"}
    words = ["run", *SPECS, "--import", "tests.faulty", "--executor", "inline", "--quiet"]
    words += ["--out", str(folder / "out"), "--data", str(folder)]
    return subprocess.Popen(
        [sys.executable, "-m", "raygrid", *words],
        cwd=ROOT,
        env={**os.environ, **own},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limit,
    )


def assert_both_done(folder: Path) -> None:
    rows = [json.loads(r) for r in (folder / "out" / "results.jsonl").read_text().splitlines()]
    assert sorted((row["spec"], row["status"]) for row in rows) == [(s, "done") for s in SPECS]


def sync(out: Path) -> tuple[int, str]:
    """Exit status and errors of a process of its own, which has opened no database before."""
    command = [sys.executable, "-m", "raygrid", "sync", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize("fault", [deleted, spoiled], ids=lambda f: f.__name__)
def test_a_run_outlives_its_database(tmp_path: Path, fault: Callable[[Path], None]) -> None:
    """The rows are whole, a line says what is missing, and `sync` brings it to a new database."""
    out, faults = tmp_path / "out", tmp_path / "faults"
    faults.mkdir()
    (faults / "hold-2").touch()
    driver, marks = drive(tmp_path), faults / "marks"
    until(
        lambda: (marks.exists() and '"tag": 2' in marks.read_text()) or None,
        120,
        lambda: f"ended with {driver.poll()}",
    )
    fault(out)
    (faults / "hold-2").unlink()
    _, said = driver.communicate(timeout=600)
    assert driver.returncode == 0, said
    assert "Traceback" not in said
    assert "raygrid sync" in said
    assert_both_done(tmp_path)
    if fault is spoiled:
        status, said = sync(out)
        assert status == 2
        assert "mlflow.db cannot be used" in said.splitlines()[-1]
        assert "Traceback" not in said
        deleted(out)
    assert sync(out)[0] == 0
    assert {run.info.status for run in children(out).values()} == {"FINISHED"}
    assert len(children(out)) == 2
    assert [run.info.status for run in parents(out)] == ["FINISHED"]


def test_few_open_files_are_enough(tmp_path: Path) -> None:
    driver = drive(tmp_path, limit=few_files)
    _, said = driver.communicate(timeout=600)
    assert driver.returncode == 0, said
    assert_both_done(tmp_path)
    assert len(children(tmp_path / "out")) == 2
