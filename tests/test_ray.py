"""The Ray executor on one machine: the same results as in process, and no deadlock."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from raygrid.profiles import Shelf
from raygrid.progress import Display
from raygrid.run import Options, run_grid
from raygrid.store import Store
from tests.test_run import GRID, SLEEP, WILD, Recorder, essence
from tests.test_shards import PGD, TRIAL

pytestmark = pytest.mark.filterwarnings("ignore")
ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def one_gpu() -> Iterator[None]:
    """A cluster with one logical GPU and two CPUs: poisons and trials here ask for GPU shares."""
    from raygrid.runner.executor import RayOptions, connected

    with connected(RayOptions(cpus=2, gpus=1)):
        yield


def ray_options(tmp_path: Path) -> Options:
    return Options(out=tmp_path / "ray", data=tmp_path, executor="ray", imports=("tests.plugin",))


def test_ray_gives_what_inline_gives_on_a_single_gpu(one_gpu: None, tmp_path: Path) -> None:
    """Artifacts that need the only GPU and trials that wait for them both finish.

    One poison is made by two jobs, there alone.
    """
    recorder = Recorder()
    specs = [*GRID.specs(), TRIAL.format(PGD)]
    outcome = run_grid(specs, replace(ray_options(tmp_path), shards=2), recorder)
    inline = run_grid(specs, Options(out=tmp_path / "in", data=tmp_path, executor="inline"))
    there = {r.key: essence(r) for r in outcome.results}
    here = {r.key: essence(r) for r in inline.results}
    assert there == here
    assert recorder.artifacts.count(("shard", "made")) == 2
    assert recorder.artifacts.count(("poison", "made")) == 3
    assert recorder.artifacts.count(("purified", "made")) == 3
    assert run_grid(specs, ray_options(tmp_path)).submitted == 0


def test_a_killed_worker_costs_a_retry_not_a_trial(one_gpu: None, tmp_path: Path) -> None:
    flag = tmp_path / "died"
    specs = [SLEEP.format("clean", f"(flag={flag})"), SLEEP.format("broken", ""), WILD]
    lines = io.StringIO()
    outcome = run_grid(specs, ray_options(tmp_path), Display(lines))
    assert flag.exists()
    assert sorted(r.status for r in outcome.results) == ["diverged", "done", "failed"]
    assert len((tmp_path / "ray" / "results.jsonl").read_text().splitlines()) == 3
    assert "its worker was lost" in lines.getvalue()


@pytest.mark.slow
def test_a_kind_that_ran_out_of_memory_does_so_no_more(one_gpu: None, tmp_path: Path) -> None:
    """Two at a time find an eighth too little; those that wait then ask for a quarter."""
    log = tmp_path / "log"
    wants = f"(hunger=0.25, log={log})"
    specs = [SLEEP.format("clean", wants).removesuffix("0") + str(seed) for seed in range(6)]
    lines = io.StringIO()
    outcome = run_grid(specs, ray_options(tmp_path), Display(lines))
    assert [r.status for r in outcome.results] == ["done"] * 6
    shares = [float(line) for line in log.read_text().splitlines()]
    assert set(shares) == {1 / 8}
    assert len(shares) <= 3, "without learning they are six"
    assert lines.getvalue().count("out of memory with 0.125 of a GPU") == len(shares)
    kept = Shelf(Store(tmp_path / "ray" / "store")).load()
    assert kept.find("A10G", "small_cnn/sleeper/128/16").least == 0.25
