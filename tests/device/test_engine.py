"""A grid through Ray whose workers hold parts of a GPU and compute on the pretend device."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from raygrid.storage.store import ResultLog
from tests.device.on_workers import NOTES
from tests.device.test_training import apart

pytest.importorskip("ray")
pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("ignore")]
ROOT = Path(__file__).parents[2]
SPECS = [
    f"dots/{attack}/standard/small_cnn/supervised/quick(epochs=2)/0"
    for attack in ("clean", "lsp", "pgd")
]
DRIVER = """
import sys
from pathlib import Path
from raygrid import Options, run_grid
from raygrid.engine.ray.executor import connected
out, executor, specs = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
imports = ("tests.device.on_workers",) if executor == "ray" else ("tests.plugin",)
options = Options(
    out=out, data=out, executor=executor, imports=imports, per_gpu=2 if executor == "ray" else None,
    quiet=True, tracking="off",
)
if executor == "ray":
    with connected(cpus=2, gpus=1):
        run_grid(specs, options)
else:
    run_grid(specs, options)
"""


def drive(folder: Path, executor: str) -> dict[str, dict[str, object]]:
    """Rows by spec of the grid, run by a driver of its own."""
    notes = folder / "notes"
    notes.mkdir(parents=True)
    env = {**os.environ, NOTES: str(notes), "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", DRIVER, str(folder), executor, *SPECS]
    subprocess.run(words, env=env, check=True, capture_output=True, timeout=280, cwd=folder)
    log = ResultLog(folder / "results.jsonl")
    return {str(row["spec"]): row for row in log.rows()}


def test_workers_that_share_a_gpu_give_what_a_cpu_gives(tmp_path: Path) -> None:
    there = drive(tmp_path / "cpu", "inline")
    here = drive(tmp_path / "ray", "ray")
    assert len(here) == len(SPECS)
    assert [list(apart(here[spec], there[spec])) for spec in there] == [[]] * len(SPECS)
    assert list((tmp_path / "ray" / "notes").iterdir()), "somebody computed on the device"
    assert not list((tmp_path / "cpu" / "notes").iterdir())
