"""Too little memory, too few open files: a row or a line says so, the rest of a grid goes on."""

from __future__ import annotations

import resource
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from raygrid.api.run_grid import Options, run_grid
from raygrid.engine.events import Listener
from tests import faulty
from tests.paced import INLINE, RAY, SPEC, PacedRun

pytestmark = pytest.mark.usefixtures("undrawn")

SPECS = [SPEC.format(tag) for tag in (1, 2, 3)]
LACK = "MemoryError: there is no more memory for this process"


class Retries(Listener):
    """What was said of jobs that are tried again."""

    def __init__(self) -> None:
        self.why: list[str] = []

    def retried(self, label: str, why: str) -> None:
        self.why.append(why)


@pytest.fixture
def orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(faulty.FOLDER, str(tmp_path))
    return tmp_path


def test_a_trial_that_takes_all_memory_costs_its_own_row(orders: Path) -> None:
    """What the process may have is bounded, and Python refuses more; later it is run again."""
    (orders / "exhaust-1").touch()
    options = Options(out=orders / "out", data=orders, executor="inline")
    first = run_grid(SPECS[:2], options).results
    assert [row.status for row in first] == ["failed", "done"]
    assert (first[0].error or "").splitlines()[0] == LACK
    again = run_grid(SPECS[:2], options)
    assert again.submitted == 1
    assert [row.status for row in again.results] == ["done", "done"]


def on_ray(folder: Path, *words: str, limit: Callable[[], None] | None = None) -> PacedRun:
    env = {"RAY_TMPDIR": tempfile.mkdtemp(prefix="rm")}
    return PacedRun(folder, (*RAY, "--tracking", "off", *words), env=env, limit=limit)


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_on_ray_a_trial_that_takes_all_memory_or_is_killed_costs_no_other(tmp_path: Path) -> None:
    """The one becomes a row that says so; the other is tried again at once."""
    run = on_ray(tmp_path, "--checkpoint-every", "0.01")
    for order in ("exhaust-1", "kill-2"):
        (run.orders / order).touch()
    run.start()
    status, said = run.end()
    assert status == 1, said
    assert "Traceback" not in said
    assert run.statuses() == {SPECS[0]: "failed", SPECS[1]: "done"}
    assert LACK in (run.out / "results.jsonl").read_text()
    assert len({mark["pid"] for mark in run.marks("epoch", 2)}) == 2


@pytest.mark.cluster
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")
def test_on_ray_a_trial_without_memory_is_tried_again_beside_fewer(
    orders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has all CPUs of the node then, so it runs alone."""
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_TMPDIR", tempfile.mkdtemp(prefix="rm"))
    monkeypatch.setenv(faulty.PAUSE, "0.5")
    (orders / "memory-1").touch()
    options = Options(
        out=orders / "out", data=orders, executor="ray", cpus=2, imports=("tests.faulty",)
    )
    told = Retries()
    outcome = run_grid(SPECS, options, told)
    assert [row.status for row in outcome.results] == ["done"] * 3
    assert told.why == ["the machine ran out of memory; with 2 CPUs fewer run beside it"]
    run = PacedRun(orders, out=orders / "out")
    (orders / "marks").rename(run.orders / "marks")
    again = [mark["at"] for mark in run.marks("epoch", 1)][1:]
    others = [mark["at"] for tag in (2, 3) for mark in run.marks("epoch", tag)]
    assert len(again) == 6
    assert not [at for at in others if again[0] < at < again[-1]]


def few(files: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_on_ray_128_open_files_are_enough(tmp_path: Path) -> None:
    run = on_ray(tmp_path, limit=few(128))
    run.start()
    status, said = run.end()
    assert status == 0, said
    run.assert_whole()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_too_few_open_files_for_ray_are_said_before_anything_runs(tmp_path: Path) -> None:
    """Ray's processes waited for each other for ever, without a word."""
    run = on_ray(tmp_path, limit=few(64))
    run.start()
    status, said = run.end()
    assert status == 2, said
    (line,) = said.splitlines()
    assert line.startswith("raygrid: Ray does not start on this machine: a process may have 64 ")
    assert "needs 100; raise the limit (`ulimit -Hn 4096`" in line
    assert not run.marks("epoch")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("files", [256, 128])
def test_few_open_files_are_enough_here(tmp_path: Path, files: int) -> None:
    run = PacedRun(tmp_path, (*INLINE, "--tracking", "off"), limit=few(files))
    run.start()
    status, said = run.end()
    assert status == 0, said
    run.assert_whole()
