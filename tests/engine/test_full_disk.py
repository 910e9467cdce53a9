"""The disk of the run folder is full: at the start, for a while, or for good; here and on Ray."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.paced import INLINE, RAY, PacedRun
from tests.places import fill, small_disk

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
ON_RAY = pytest.param(RAY, marks=pytest.mark.cluster, id="ray")
EXECUTORS = [pytest.param(INLINE, id="inline"), ON_RAY]
OFTEN = ("--tracking", "off", "--checkpoint-every", "0.01")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 64) as place:
        yield place


def run_on(disk: Path, folder: Path, executor: tuple[str, ...], *more: str) -> PacedRun:
    env = {"RAY_TMPDIR": tempfile.mkdtemp(prefix="rd")}
    return PacedRun(folder, (*executor, *more), env=env, out=disk / "out")


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_disk_that_is_full_for_a_while_costs_time_alone(
    disk: Path, tmp_path: Path, executor: tuple[str, ...]
) -> None:
    """Rows, checkpoints, tables and MLflow's database are on it."""
    run = run_on(disk, tmp_path, executor, "--checkpoint-every", "0.01")
    run.hold(2)
    run.start()
    run.until_training(2)
    filler = fill(disk)
    run.release(2)
    run.until(lambda: "cannot append to" in run.said() or None)
    filler.unlink()
    status, said = run.end()
    assert status == 0, said
    assert "Traceback" not in said
    assert "trying again in" in said
    run.assert_whole()
    assert (run.out / "tables" / "defense.csv").exists()


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_disk_that_stays_full_ends_the_run_with_a_line(
    disk: Path, tmp_path: Path, executor: tuple[str, ...]
) -> None:
    """With room again the same command goes on with what is not done."""
    run = run_on(disk, tmp_path, executor, *OFTEN)
    run.hold(2)
    run.start()
    run.until_training(2)
    filler = fill(disk)
    run.release(2)
    status, said = run.end()
    assert status == 2, said
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("raygrid: cannot append to")
    assert "No space left on device" in said.splitlines()[-1]
    filler.unlink()
    run.start()
    status, said = run.end()
    assert status == 0, said
    lines = (run.out / "results.jsonl").read_text().splitlines()
    done = [json.loads(line)["spec"] for line in lines if line.endswith("}")]
    assert sorted(done) == run.specs


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_full_disk_is_refused_before_anything_runs(
    disk: Path, tmp_path: Path, executor: tuple[str, ...]
) -> None:
    fill(disk)
    run = run_on(disk, tmp_path, executor)
    run.start()
    status, said = run.end()
    assert status == 2, said
    (line,) = said.splitlines()
    assert line.startswith("raygrid: ")
    assert "full" in line or "No space left on device" in line
    assert not run.marks("epoch")
