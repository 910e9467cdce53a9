"""Temporary folders with long names, in which no socket fits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from raygrid.cli.doctor import examine
from raygrid.core.errors import StartError
from raygrid.core.options import Options
from raygrid.engine.ray import sockets

SPEC = "photo_digits(every=16)/lsp/none/small_cnn/supervised/quick(epochs=1)/0"


@pytest.fixture
def deep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder of a job on a cluster."""
    folder = tmp_path / "scratch_of_a_user" / "slurm_job.1234567.of_an_array" / "tmp"
    folder.mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    return folder


@pytest.mark.parametrize(
    ("names", "folder"),
    [
        ({}, "/tmp/ray"),
        ({"TMPDIR": "/scratch"}, "/scratch/ray"),
        ({"TMPDIR": "/scratch", "RAY_TMPDIR": "/r"}, "/r/ray"),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere Ray does not ask for TMPDIR")
def test_the_usual_folder_is_rays(names: dict[str, str], folder: str) -> None:
    utils = pytest.importorskip("ray._common.utils")
    assert sockets.usual_folder(names) == folder
    with pytest.MonkeyPatch.context() as patch:
        for name in ("TMPDIR", "RAY_TMPDIR"):
            patch.delenv(name, raising=False)
        for name, value in names.items():
            patch.setenv(name, value)
        assert utils.get_default_ray_temp_dir() == folder


def test_the_longest_folder_takes_rays_longest_socket() -> None:
    """`raylet` and `plasma_store` in a session named by time and process, pids of seven digits."""
    session = "session_2026-11-29_12-15-35_123456_4194304/sockets/plasma_store.1"
    fits = {"RAY_TMPDIR": "/" + "x" * (sockets.SOCKET_FOLDER_BYTES - len("//ray"))}
    longer = {"RAY_TMPDIR": fits["RAY_TMPDIR"] + "x"}
    assert not sockets.too_long(fits)
    assert len(f"{sockets.usual_folder(fits)}/{session}") <= 107
    assert sockets.too_long(longer)
    assert sockets.too_long({"RAY_TMPDIR": "/" + "ü" * (sockets.SOCKET_FOLDER_BYTES // 2)}), (
        "bytes count"
    )


def test_a_folder_of_somebody_else_is_not_taken(
    deep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "SHORT_FOLDER", tmp_path)
    made = sockets.short_folder()
    assert made == sockets.short_folder()
    assert made.stat().st_mode & 0o777 == 0o700
    made.chmod(0o777)
    with pytest.raises(StartError, match="is not a folder of this user alone; set RAY_TMPDIR"):
        sockets.short_folder()
    made.rmdir()
    made.symlink_to(deep)
    with pytest.raises(StartError, match=f"no socket fits into {deep}/ray, which has"):
        sockets.short_folder()
    monkeypatch.setattr(sockets, "SHORT_FOLDER", tmp_path / "absent")
    (check,) = (c for c in examine(Options(out=tmp_path, data=tmp_path)) if c.name == "ray")
    assert check.state == "fault"
    assert "cannot be made (No such file or directory)" in check.text


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_ray_starts_below_a_long_temporary_folder(deep: Path, tmp_path: Path) -> None:
    """It ended in `AF_UNIX path length cannot exceed 107 bytes` and a traceback."""
    pytest.importorskip("ray")
    command = [sys.executable, "-m", "raygrid", "run", SPEC, "--executor", "ray", "--cpus", "1"]
    command += ["--quiet", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 0, done.stderr[-2000:]
    assert "AF_UNIX" not in done.stdout + done.stderr
    (row,) = map(json.loads, (tmp_path / "out" / "results.jsonl").read_text().splitlines())
    assert row["status"] == "done"
