"""A grid through Ray whose workers hold parts of a GPU and compute on the pretend device."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from raygrid.storage.results import ResultLog
from tests.device.on_workers import NOTES
from tests.device.test_training import apart

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("ignore")]
ROOT = Path(__file__).parents[2]
TRAINED = [
    f"dots/{attack}/{defense}/small_cnn/{learner}/quick(epochs=2)/0"
    for attack, defense, learner in (
        ("clean", "standard", "supervised"),
        ("lsp", "grayscale", "supervised"),
        ("lsp@0.5", "mixup", "supervised"),
        ("pgd(steps=2, surrogate=small_cnn, surrogate_epochs=1)", "standard", "supervised"),
        ("clean", "standard", "simclr"),
    )
]
DRIVER = """
import sys
from pathlib import Path
from raygrid.api.run_grid import run_grid
from raygrid.core.options import Options
from raygrid.engine.ray.executor import connected
out, executor, specs = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
on_ray = executor == "ray"
options = Options(
    out=out, data=out, executor=executor, per_gpu=2 if on_ray else None, quiet=True,
    imports=("tests.device.on_workers" if on_ray else "tests.plugin",), tracking="off",
)
if on_ray:
    with connected(cpus=2, gpus=1):
        run_grid(specs, options)
else:
    run_grid(specs, options)
"""


def drive(folder: Path, executor: str, specs: list[str]) -> dict[str, dict[str, object]]:
    """Rows by spec of the grid, run by a driver of its own."""
    notes = folder / "notes"
    notes.mkdir(parents=True)
    env = {**os.environ, NOTES: str(notes), "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", DRIVER, str(folder), executor, *specs]
    done = subprocess.run(words, env=env, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return {str(row["spec"]): row for row in ResultLog(folder / "results.jsonl").rows()}


@pytest.mark.timeout(900)
def test_workers_that_share_a_gpu_give_what_a_cpu_gives(tmp_path: Path) -> None:
    """Beside them one job outgrows its share, and the GPU of another fails."""
    shares, pids = tmp_path / "shares", tmp_path / "pids"
    toy = "dots/clean/standard/small_cnn/sleeper({})/brief(epochs=1)/0"
    hungry = toy.format(f'hunger=0.9, log="{shares}"')
    broken = toy.format(f'lost="{pids}"')
    there = drive(tmp_path / "cpu", "inline", TRAINED)
    here = drive(tmp_path / "ray", "ray", [*TRAINED, hungry, broken])
    toys = {spec: here.pop(spec) for spec in list(here) if "sleeper" in spec}
    assert here.keys() == there.keys()
    assert {spec: list(apart(here[spec], there[spec])) for spec in there} == {s: [] for s in there}

    fed, lost = (next(row for spec, row in toys.items() if n in spec) for n in ("hunger", "lost"))
    assert fed["status"] == "done", "with the whole of it"
    assert shares.read_text().split() == ["0.5"], "two to a GPU"
    assert lost["status"] == "failed"
    assert "its GPU failed twice" in str(lost["error"])
    first, second = pids.read_text().split()
    assert first != second, "a process whose GPU failed takes no other job"

    computed = {path.name for path in (tmp_path / "ray" / "notes").iterdir()}
    assert {first, second} <= computed
    assert not list((tmp_path / "cpu" / "notes").iterdir())
