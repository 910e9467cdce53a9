"""A cluster that has no GPU until a grid wants one, and none again afterwards.

The autoscaler, its nodes and the grid are real; the machines are processes and their GPUs a number.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import fake_nodes
from tests.engine.test_faults import CLEAN, POISONED, ROOT, WORDS, Lab, Undisturbed, assert_whole
from tests.engine.test_faults import undisturbed as undisturbed
from tests.ports import free_ports

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore"),
]
HEAD = "f" * 51 + "00000"
IDLE = 0.15  # minutes until a node without work is given back


def description(gcs: str) -> dict[str, Any]:
    """What `ray up` would read: a head without CPUs and up to two nodes with a GPU each."""
    empty_lists = ("initialization", "setup", "head_setup", "worker_setup")
    return {
        "cluster_name": "fake",
        "max_workers": 2,
        "upscaling_speed": 10.0,
        "idle_timeout_minutes": IDLE,
        "provider": {
            "type": "external",
            "module": f"{fake_nodes.__name__}.Provider",
            "gcs_address": gcs,
            "launch_multiple": True,
            "head_node_id": HEAD,
            "disable_node_updaters": True,
        },
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "gpu": {
                "resources": {"CPU": 1, "GPU": 1},
                "node_config": {},
                "min_workers": 0,
                "max_workers": 2,
            },
        },
        **{f"{name}_commands": [] for name in empty_lists},
        **{f"{name}_start_ray_commands": [] for name in ("head", "worker")},
        **{name: {} for name in ("auth", "file_mounts", "head_node", "worker_nodes")},
        **{name: [] for name in ("cluster_synced_files", "rsync_exclude", "rsync_filter")},
        "file_mounts_sync_continuously": False,
    }


@pytest.fixture
def lab(mlflow_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """The head of such a cluster; everything that it started ends with it."""
    import ray

    folder = Path(tempfile.mkdtemp(prefix="ra"))
    (folder / "ray").mkdir()
    host = ray.util.get_node_ip_address()
    gcs, *ports = free_ports(4)
    address = f"{host}:{gcs}"
    (folder / "cluster.yaml").write_text(json.dumps(description(address)))
    lab = Lab(
        SimpleNamespace(address=address), tmp_path, (tmp_path / "store").as_uri(), mlflow_template
    )
    words = {
        **{**WORDS, **lab.env("any"), "RAYGRID_GPUS": "1"},
        **{"RAY_TMPDIR": str(folder), "PYTHONPATH": str(ROOT), fake_nodes.FOLDER: str(folder)},
        **{"RAY_FAKE_CLUSTER": "1", "RAY_enable_autoscaler_v2": "1"},
        **{"RAY_CLOUD_INSTANCE_ID": HEAD, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD},
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    }
    for name, value in words.items():
        monkeypatch.setenv(name, value)
    command = [sys.executable, "-m", "raygrid.engine.ray.start", "start", "--head"]
    command += ["--num-cpus", "0"]
    command += ["--autoscaling-config", str(folder / "cluster.yaml"), "--port", str(gcs)]
    options = ("--ray-client-server-port", "--dashboard-agent-listen-port", "--dashboard-port")
    for option, port in zip(options, ports, strict=True):
        command += [option, str(port)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    for name in ("RAY_CLOUD_INSTANCE_ID", "RAY_OVERRIDE_NODE_ID_FOR_TESTING", "RAY_FAKE_CLUSTER"):
        monkeypatch.delenv(name)  # of the head alone
    try:
        yield lab
    finally:
        lab.end()
        end_all(str(folder))
        shutil.rmtree(folder, ignore_errors=True)


def end_all(folder: str) -> None:
    """Kill every process that works in a folder."""
    import psutil

    for process in psutil.process_iter(["cmdline", "environ"]):
        words = process.info["cmdline"] or []
        own = (process.info["environ"] or {}).get("RAY_TMPDIR") == folder
        if process.pid != os.getpid() and (own or any(folder in word for word in words)):
            process.kill()


def gpus(address: str) -> int:
    """GPUs of the nodes that live."""
    from ray._raylet import GcsClient

    nodes = GcsClient(address=address).get_all_node_info().values()
    alive = [node for node in nodes if node.state == 0]
    return int(sum(node.resources_total.get("GPU", 0) for node in alive))


def test_nodes_come_for_a_grid_and_go_after_it(lab: Lab, undisturbed: Undisturbed) -> None:
    grid = [*CLEAN, *POISONED]
    address = lab.cluster.address
    assert gpus(address) == 0
    driver = lab.drive(grid)
    seen = []
    while driver.process.poll() is None:
        seen.append(gpus(address))
        assert len(seen) < 600, driver.words()
        time.sleep(0.5)
    assert driver.process.returncode == 0, driver.words()
    assert max(seen) == 2
    assert_whole(driver, undisturbed(grid))
    end = time.monotonic() + 120
    while gpus(address) and time.monotonic() < end:
        time.sleep(1)
    assert gpus(address) == 0
