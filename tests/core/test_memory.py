"""The memory of one job, whatever its process did before."""

from __future__ import annotations

import mmap
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from raygrid.api.run_grid import Options, run_grid
from raygrid.core import memory
from raygrid.core.memory import PeakMemory, lifetime_peak
from raygrid.engine.events import ArtifactState, Listener
from raygrid.trials.artifacts import Artifact
from tests import plugin

pytestmark = pytest.mark.usefixtures("undrawn")

assert plugin.CARD
MB = 2**20
SPEC = "dots/slow_shift/none/small_cnn/supervised/brief/{}"

lowered = pytest.mark.skipif(
    not PeakMemory().since_start, reason="this system does not let a process lower its mark"
)


def resident() -> float:
    """What is resident now, in MB, without shared memory."""
    said = Path("/proc/self/status").read_text()
    return sum(int(kb) for kb in re.findall(r"Rss(?:Anon|File):\s+(\d+)", said)) / 1024


def passing(megabytes: int) -> None:
    """Take so much memory and give it back."""
    assert len(torch.ones(megabytes * MB, dtype=torch.uint8)) == megabytes * MB


class Made(Listener):
    """The memory of every artifact that was made."""

    def __init__(self) -> None:
        self.memory: list[float] = []

    def artifact(self, artifact: Artifact, state: ArtifactState, facts: dict[str, Any]) -> None:
        if state == "made":
            self.memory.append(facts["memory_mb"])


@lowered
def test_a_trial_and_an_artifact_do_not_carry_the_peak_of_what_ran_before(tmp_path: Path) -> None:
    options = Options(out=tmp_path / "out", data=tmp_path / "data", executor="inline")
    run_grid([SPEC.format(1)], options)  # loads the libraries that a trial needs
    passing(300)
    assert lifetime_peak() > resident() + 250
    made, before = Made(), resident()
    results = run_grid([SPEC.format(0)], options, made).results
    assert len(made.memory) == len(results) == 1
    for taken in (*made.memory, *(result.memory_mb for result in results)):
        assert before - 50 < taken < before + 100


@lowered
def test_a_peak_stays_over_the_measurements_after_it() -> None:
    before = resident()
    peak = PeakMemory()
    passing(200)
    high = peak.measure()
    assert before + 190 < high < before + 250
    assert peak.measure() == high
    assert PeakMemory().measure() < before + 100


@lowered
def test_shared_memory_is_not_counted() -> None:
    peak, before = PeakMemory(), resident()
    with mmap.mmap(-1, 200 * MB) as shared:
        for _ in range(200):
            shared.write(bytes(MB))
        found = peak.measure(), peak.measure(), PeakMemory().measure()
    assert max(found) < before + 50


def test_where_the_mark_cannot_be_lowered_it_is_that_of_the_whole_life(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory, "_MARK", tmp_path / "none" / "clear_refs")
    passing(100)
    peak = PeakMemory()
    assert not peak.since_start
    assert peak.measure() == pytest.approx(lifetime_peak(), abs=1)
    assert peak.measure() >= resident() - 1
