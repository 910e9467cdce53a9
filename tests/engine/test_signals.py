"""A grid on Ray is told to end: one line, nothing left, and the same command goes on."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from tests.paced import RAY, PacedRun
from tests.patience import until
from tests.tracking.tracked import parents, runs

pytest.importorskip("ray")  # which brings psutil along
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
WAYS = {
    "ctrl-c": (os.killpg, signal.SIGINT, 1),  # a terminal tells all of the group
    "ctrl-c twice": (os.killpg, signal.SIGINT, 2),
    "kill": (os.kill, signal.SIGTERM, 1),
    "closed terminal": (os.killpg, signal.SIGHUP, 1),
}


def of_run(run: PacedRun) -> list[Any]:
    """Living processes with the run's own folder of Ray in their environment."""
    import psutil

    mine = f"RAY_TMPDIR={run.env['RAY_TMPDIR']}".encode()
    found = []
    for process in psutil.process_iter():
        try:
            words = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
            if mine in words and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (OSError, psutil.Error):
            continue
    return found


@pytest.mark.parametrize("way", WAYS)
def test_a_grid_that_is_told_to_end_leaves_nothing(
    tmp_path: Path, mlflow_template: Path, way: str
) -> None:
    env = {"RAY_TMPDIR": tempfile.mkdtemp(prefix="rs")}
    run = PacedRun(tmp_path, (*RAY, "--checkpoint-every", "0.01"), env=env)
    run.out.mkdir()
    (run.out / "mlflow.db").write_bytes(mlflow_template.read_bytes())
    run.hold(2)
    driver = run.start()
    run.until_training(2)
    tell, number, times = WAYS[way]
    for _ in range(times):
        tell(driver.pid, number)
        time.sleep(0.5)
    status, said = run.end(120)
    assert status == 130, said
    assert "stopped; what is finished is kept; run the same command again to continue" in said
    for word in ("Traceback", "leaked", "Exception ignored", "resource_tracker", "Error"):
        assert word not in said
    assert ("Ctrl-C once more ends at once" in said) is (times == 2)
    assert list((run.out / "store" / "claims").iterdir()) == []
    until(lambda: not of_run(run) or None, 60, lambda: str(of_run(run)))
    assert [each.info.status for each in parents(run.out)] == ["KILLED"]
    assert "RUNNING" not in [each.info.status for each in runs(run.out)]
    run.release(2)
    run.start()
    status, said = run.end()
    assert status == 0, said
    run.assert_whole()
    assert [each.info.status for each in parents(run.out)] == ["FINISHED"]
    assert not of_run(run)
