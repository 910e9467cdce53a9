"""MLflow's database goes away, is spoiled, read-only or full; few files may be open."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.paced import INLINE, ROOT, PacedRun
from tests.places import bound_by_permissions, fill, small_disk
from tests.tracking.tracked import children, parents

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def deleted(out: Path) -> None:
    for file in out.glob("mlflow.db*"):
        file.unlink()


def spoiled(out: Path) -> None:
    (out / "mlflow.db").write_bytes(b"no database" * 1000)


def few_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))


def sync(out: Path, *more: str) -> tuple[int, str]:
    """Exit status and errors of a process of its own, which has opened no database before."""
    command = [sys.executable, "-m", "raygrid", "sync", "--out", str(out), *more]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    return done.returncode, done.stderr


def address(place: Path) -> str:
    return f"sqlite:///{place / 'mlflow.db'}"


def tracked_in(folder: Path, place: Path, limit: Callable[[], None] | None = None) -> PacedRun:
    """A run whose database lies apart from its rows."""
    return PacedRun(folder, (*INLINE, "--tracking", address(place)), limit=limit)


def broken_in_the_middle(run: PacedRun, fault: Callable[[], object]) -> str:
    """Let a fault strike while the second trial trains; what the run printed until its good end."""
    run.hold(2)
    run.start()
    run.until_training(2)
    fault()
    run.release(2)
    status, said = run.end()
    assert status == 0, said
    assert "Traceback" not in said
    assert "raygrid sync" in said
    run.assert_whole()
    return said


def assert_synced(run: PacedRun, uri: str | None = None) -> None:
    """What MLflow lacked comes with `sync`: a finished run a trial under one finished parent."""
    status, said = sync(run.out, *(["--tracking", uri] if uri else []))
    assert status == 0, said
    runs = children(run.out, uri)
    assert [each.info.status for each in runs.values()] == ["FINISHED"] * 2
    assert [each.info.status for each in parents(run.out, uri)] == ["FINISHED"]


@pytest.mark.parametrize("fault", [deleted, spoiled], ids=lambda f: f.__name__)
def test_a_run_outlives_its_database(tmp_path: Path, fault: Callable[[Path], None]) -> None:
    """The rows are whole, a line says what is missing, and `sync` brings it to a new database."""
    run = PacedRun(tmp_path)
    broken_in_the_middle(run, lambda: fault(run.out))
    if fault is spoiled:
        status, said = sync(run.out)
        assert status == 2
        assert "mlflow.db cannot be used" in said.splitlines()[-1]
        assert "Traceback" not in said
        deleted(run.out)
    assert_synced(run)


@pytest.fixture
def place(tmp_path: Path, mlflow_template: Path) -> Path:
    """A folder with a database."""
    folder = tmp_path / "tracking"
    folder.mkdir()
    (folder / "mlflow.db").write_bytes(mlflow_template.read_bytes())
    return folder


def close_to_writers(place: Path) -> None:
    (place / "mlflow.db").chmod(0o444)
    place.chmod(0o555)


def open_to_writers(place: Path) -> None:
    place.chmod(0o755)
    (place / "mlflow.db").chmod(0o644)


def test_a_run_outlives_a_database_that_becomes_read_only(tmp_path: Path, place: Path) -> None:
    run = tracked_in(tmp_path, place, bound_by_permissions)
    broken_in_the_middle(run, lambda: close_to_writers(place))
    open_to_writers(place)
    assert_synced(run, address(place))


def test_a_read_only_database_is_refused_before_anything_runs(tmp_path: Path, place: Path) -> None:
    close_to_writers(place)
    run = tracked_in(tmp_path, place, bound_by_permissions)
    run.start()
    status, said = run.end()
    open_to_writers(place)
    assert status == 2, said
    (line,) = said.splitlines()
    assert line == (
        f"raygrid: MLflow at {address(place)} cannot be used: {place / 'mlflow.db'} cannot be "
        "written; name another database with --tracking, or off"
    )
    assert not (run.out / "results.jsonl").exists()
    assert not run.marks("epoch")


def test_a_run_outlives_a_full_disk_of_its_database(tmp_path: Path, mlflow_template: Path) -> None:
    """It is full from the middle on, and has room again when `sync` is called."""
    with small_disk(tmp_path / "small", 8) as place:
        (place / "mlflow.db").write_bytes(mlflow_template.read_bytes())
        run = tracked_in(tmp_path, place)
        said = broken_in_the_middle(run, lambda: fill(place))
        assert "database or disk is full" in said
        (place / "filler").unlink()
        assert_synced(run, address(place))


def test_a_database_that_does_not_fit_on_its_disk_is_refused(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 1) as place:
        fill(place)
        run = tracked_in(tmp_path, place)
        run.start()
        status, said = run.end()
    assert status == 2, said
    (line,) = said.splitlines()
    assert line.startswith(f"raygrid: MLflow at {address(place)} cannot be used: ")
    assert "disk is full" in line
    assert not run.marks("epoch")


def test_few_open_files_are_enough(tmp_path: Path) -> None:
    run = PacedRun(tmp_path, limit=few_files)
    run.start()
    status, said = run.end()
    assert status == 0, said
    run.assert_whole()
    assert len(children(run.out)) == 2
