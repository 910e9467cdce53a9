"""The simulated schedule of packed GPUs against a run through Ray."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray")
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(500)]
ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "experiments" / "benchmarks"
DRIVER = """
import dataclasses, json, sys
from raygrid.core.plugins import load_plugins
import simulation
load_plugins((str(simulation.HERE / "idle.py"),))
found = simulation.packed(12 * int(sys.argv[1]), int(sys.argv[1]), 16.0)
print(json.dumps(dataclasses.asdict(found)))
"""


@pytest.mark.parametrize("gpus", [1, 2])
def test_a_packed_run_takes_as_long_as_its_play(tmp_path: Path, gpus: int) -> None:
    """Cards for trials that take a half and a quarter of one; makespans within a seventh."""
    path = os.pathsep.join(map(str, (ROOT, BENCHMARKS)))
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(gpus)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found["packed"]) == {"0.25", "0.5"}
    assert sum(found["packed"].values()) == len(found["begins"]) == 12 * gpus
    alone = 12 * 8.0  # seconds, one at a time on each card and each as short as any
    assert found["ran"] - found["begins"][0] < alone, "nothing was packed"
    assert 6 / 7 < found["played"] / found["ran"] < 7 / 6
