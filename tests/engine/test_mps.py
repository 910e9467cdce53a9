"""NVIDIA's MPS, with a program in place of its own that notes what it is asked."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")
from raygrid.engine.ray import mps

PROGRAM = """#!/usr/bin/env python3
import json, os, pathlib, sys
folder = pathlib.Path(os.environ["CUDA_MPS_PIPE_DIRECTORY"])
names = ("CUDA_VISIBLE_DEVICES", "CUDA_MPS_LOG_DIRECTORY", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE")
seen = {n: os.environ[n] for n in names if n in os.environ}
asks = None if sys.argv[1:] else sys.stdin.read()
with (folder / "calls").open("a") as file:
    file.write(json.dumps([sys.argv[1:], asks, seen]) + "\\n")
if sys.argv[1:] == ["-d"]:
    if (folder / "refuses").exists():
        sys.exit("MPS is not for this card")
    (folder / "lives").touch()
elif not (folder / "lives").exists():
    sys.exit("Cannot find MPS control daemon process")
"""


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a worker on a node that has the program."""
    program = tmp_path / "bin" / mps.MPS_CONTROL
    program.parent.mkdir()
    program.write_text(PROGRAM)
    program.chmod(0o755)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    monkeypatch.setenv("PATH", path)
    return {"PATH": path, "CUDA_VISIBLE_DEVICES": "1"}


def folder(tmp_path: Path) -> Path:
    return tmp_path / f"raygrid-mps-{os.getuid()}"


def calls(tmp_path: Path) -> list[Any]:
    path = folder(tmp_path) / "calls"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_the_first_worker_starts_the_daemon_and_all_find_it(
    node: dict[str, str], tmp_path: Path
) -> None:
    first, second = dict(node), dict(node)
    assert mps.use_mps(0.25, first)
    assert mps.use_mps(0.5, second)
    home = str(folder(tmp_path))
    assert first == second == {**node, "CUDA_MPS_PIPE_DIRECTORY": home}
    log = {"CUDA_MPS_LOG_DIRECTORY": home}  # every GPU of the node is served, without a limit
    ask = [[], "get_server_list\n", log]
    assert calls(tmp_path) == [ask, [["-d"], None, log], ask, ask]
    assert mps.use_mps(0.25, first)
    assert len(calls(tmp_path)) == 4, "a worker that goes on with another job asks nothing"
    assert folder(tmp_path).stat().st_mode & 0o777 == 0o700


def test_jobs_of_slurm_on_one_machine_do_not_share_a_daemon(
    node: dict[str, str], tmp_path: Path
) -> None:
    """The first to end takes its daemon with it, and each has cards of its own."""
    first, second = ({**node, "SLURM_JOB_ID": job} for job in ("4711", "4712"))
    assert mps.use_mps(0.25, first)
    assert mps.use_mps(0.25, second)
    homes = [Path(env[mps.PIPES_VARIABLE]) for env in (first, second)]
    assert homes == [tmp_path / f"{folder(tmp_path).name}-{job}" for job in ("4711", "4712")]
    assert all((home / "lives").exists() for home in homes)
    assert not folder(tmp_path).exists()


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_who_shares_no_gpu_needs_no_daemon(
    node: dict[str, str], tmp_path: Path, share: float
) -> None:
    assert not mps.use_mps(share, node)
    assert not mps.use_mps(0.5, {**node, "CUDA_VISIBLE_DEVICES": "MIG-1"})
    assert calls(tmp_path) == []


def test_a_daemon_of_the_users_own_is_left_alone(node: dict[str, str], tmp_path: Path) -> None:
    mine = {**node, "CUDA_MPS_PIPE_DIRECTORY": "/tmp/nvidia-mps"}
    assert mps.use_mps(0.5, mine)
    assert mine["CUDA_MPS_PIPE_DIRECTORY"] == "/tmp/nvidia-mps"
    assert calls(tmp_path) == []


def test_without_the_program_trials_take_turns(tmp_path: Path) -> None:
    env = {"PATH": str(tmp_path)}
    assert not mps.use_mps(0.5, env)
    assert env == {"PATH": str(tmp_path)}


def test_a_daemon_that_does_not_start_is_done_without(
    node: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder(tmp_path).mkdir(mode=0o700)
    (folder(tmp_path) / "refuses").touch()
    env = dict(node)
    assert not mps.use_mps(0.5, env)
    assert env == node
    assert "trials take turns on the GPU: MPS is not for this card" in caplog.text


def test_a_folder_of_somebody_else_is_not_used(
    node: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder(tmp_path).symlink_to(elsewhere)
    assert not mps.use_mps(0.5, dict(node))
    assert "is not a folder of this user" in caplog.text
