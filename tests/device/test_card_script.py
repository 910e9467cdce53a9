"""The script for the minutes with a GPU, tried with the pretend device."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from raygrid.engine.worker import commit
from tests.device.on_workers import NOTES

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "experiments" / "benchmarks" / "gpu.py"
PARTS = ["about", "ends", "speed", "together", "fast", "attacks"]


def ran(folder: Path, *words: str) -> tuple[list[dict[str, Any]], str, float]:
    """What the script wrote as it went, what it printed, and its seconds."""
    notes = folder / "notes"
    notes.mkdir(exist_ok=True)
    path = os.pathsep.join([str(ROOT), str(folder)])
    env = {**os.environ, NOTES: str(notes), "PYTHONPATH": path}
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--small", "--out", str(folder / "rows.jsonl"), *words],
        env=env,
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    return rows, done.stdout, time.monotonic() - started


@pytest.mark.cluster
@pytest.mark.timeout(2400)
def test_every_part_runs_on_a_device_that_is_none(tmp_path: Path) -> None:
    """All on the pretend device, workers of Ray and processes of their own among them."""
    pytest.importorskip("ray")
    pretend = ["--device", "pretend:0", "--import", "tests.device.on_workers"]
    rows, said, _ = ran(tmp_path, "--minutes", "40", *pretend)
    assert list(dict.fromkeys(row["part"] for row in rows)) == PARTS
    # What fails is a row, and the script goes on: the tests' own attack that is broken.
    assert [row["what"] for row in rows if row["state"] != "ok"] == ["broken"]
    whats = {row["what"]: row for row in rows}
    assert {"all on Ray, 1 to a GPU", "all on Ray, 4 to a GPU", "bare loop"} <= whats.keys()
    for defense in ("standard", "none"):
        assert whats[f"equal bytes, {defense}"]["equal"]
        assert whats[f"equal bytes, {defense}"]["recordable"]
        assert whats[f"recorded steps, {defense}"]["images_per_second"] > 0
    rates = whats["in turns"]["images_per_second"]
    assert {"1", "2"} <= rates.keys()
    one, four = (whats[f"all on Ray, {n} to a GPU"] for n in (1, 4))
    assert one["accuracy"] == four["accuracy"], "shares change no number"
    table = [line for line in said.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(rows)
    assert commit() in table[2]
    assert "torch 2" in table[2]
    assert len(list((tmp_path / "notes").iterdir())) >= 4  # itself, two beside it, Ray's workers


@pytest.mark.slow
def test_a_script_whose_time_is_over_has_told_what_it_knew(tmp_path: Path) -> None:
    rows, said, seconds = ran(tmp_path, "--minutes", "0.05", "--device", "cpu")
    assert seconds < 60
    states = [row["state"] for row in rows]
    assert states[0] == "ok"
    assert states.count("no time") >= 5
    late = [row["error"] for row in rows if row["state"] == "failed"]
    assert set(late) <= {"TimeOver: the time is over"}
    assert len([line for line in said.splitlines() if line.startswith("|")]) == 2 + len(rows)


FAULT = """
from dataclasses import dataclass
from raygrid.attacks.base import ATTACKS
from tests.plugin import Broken

@ATTACKS.register("a_fault")
@dataclass(frozen=True, kw_only=True)
class Fault(Broken):
    def propose(self, images, context):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
"""


@pytest.mark.slow
def test_after_a_lost_gpu_the_script_goes_on_in_a_fresh_process(tmp_path: Path) -> None:
    (tmp_path / "fault.py").write_text(FAULT)
    words = ["--minutes", "10", "--device", "cpu", "--import", "fault"]
    rows, said, _ = ran(tmp_path, *words, "--parts", "attacks", "speed")
    lost, left_out = (row for row in rows if row["part"] == "attacks")
    assert lost["what"] == "a_fault"
    assert "an illegal memory access" in lost["error"]
    assert left_out["state"] == "left out, the GPU was lost"
    assert {row["state"] for row in rows if row["part"] == "speed"} == {"ok"}
    assert [row["part"] for row in rows].count("about") == 1
    assert len([line for line in said.splitlines() if line.startswith("|")]) == 2 + len(rows)
