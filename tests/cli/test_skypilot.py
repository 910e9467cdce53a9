"""The file for SkyPilot: its schema by SkyPilot itself, and what it runs on two nodes."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from raygrid.cli.cluster_file import examine_cluster
from raygrid.storage.results import ResultLog

ROOT = Path(__file__).parents[2]
FILE = ROOT / "experiments" / "clusters" / "skypilot.yaml"


def task() -> dict[str, Any]:
    loaded = yaml.safe_load(FILE.read_text())
    assert isinstance(loaded, dict)
    return loaded


def test_doctor_asks_for_the_bucket_and_says_who_judges_the_rest(tmp_path: Path) -> None:
    checks = {check.name: check for check in examine_cluster(FILE)}
    assert checks["placeholders"].state == "fault"
    assert "YOUR-BUCKET" in checks["placeholders"].text
    named = tmp_path / "sky.yaml"
    named.write_text(FILE.read_text().replace("YOUR-BUCKET", "my-bucket"))
    checks = {check.name: check for check in examine_cluster(named)}
    assert checks["placeholders"].state == "ok"
    assert checks["store"].text == "s3://my-bucket"
    assert "SkyPilot" in checks["schema"].text


@pytest.mark.slow
def test_skypilot_takes_it_and_refuses_a_word_it_does_not_know(tmp_path: Path) -> None:
    pytest.importorskip("sky", reason="`uv run --with skypilot pytest -m slow ...` has it")
    checks = {check.name: check for check in examine_cluster(FILE)}
    assert checks["schema"].state == "ok"
    wrong = tmp_path / "sky.yaml"
    wrong.write_text(FILE.read_text().replace("num_nodes", "number_of_nodes"))
    checks = {check.name: check for check in examine_cluster(wrong)}
    assert checks["schema"].state == "fault"
    assert "number_of_nodes" in checks["schema"].text


@pytest.mark.cluster
def test_its_commands_run_a_grid_on_two_nodes_and_leave_nothing(tmp_path: Path) -> None:
    """Both nodes are this machine, which has neither a GPU nor a bucket."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "env").symlink_to(sys.prefix)
    out = tmp_path / "runs"
    folder = f"/tmp/{secrets.token_hex(4)}"
    script = task()["run"].replace("/tmp/raygrid-ray", folder)
    script = script.replace("start --block", "start --block --num-cpus 2")
    script = script.replace(
        '--scale "$SCALE"',
        f"--scale quick --attacks lsp --defenses none standard "
        f"--architectures small_cnn --learners supervised --out {out}",
    )
    env = {
        **os.environ,
        "HOME": str(home),
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "PYTHONPATH": str(ROOT),
        "SCALE": "quick",
        "SKYPILOT_NODE_IPS": "127.0.0.1\n127.0.0.1",
    }
    nodes = [
        subprocess.Popen(
            ["bash", "-c", script],
            cwd=ROOT,
            env={**env, "SKYPILOT_NODE_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        for rank in (0, 1)
    ]
    try:
        said = [node.communicate(timeout=550)[0] for node in nodes]
    finally:
        for node in nodes:
            if node.poll() is None:
                os.killpg(node.pid, 9)
    assert [node.returncode for node in nodes] == [0, 0], said
    rows = list(ResultLog(out / "results.jsonl").rows())
    assert len(rows) == 4
    assert not [row["error"] for row in rows if row["error"]]
    assert "4 running" in said[0]  # two on either node
    left = subprocess.run(["pgrep", "-fa", folder], capture_output=True, text=True)
    assert not left.stdout
