"""The Ray executor on one machine: the same results as in process, and no deadlock."""

from __future__ import annotations

import io
import pickle
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from raygrid.api.run_grid import Options, Outcome, run_grid
from raygrid.core.options import flags, hints
from raygrid.core.spec import TrialSpec
from raygrid.engine.costs.profiles import ProfileStore
from raygrid.engine.events import Listeners
from raygrid.storage.store import Store
from raygrid.tracking.display import ProgressDisplay
from tests.engine.test_run import GRID, SLEEP, WILD, Recorder, essence
from tests.options import all_changed
from tests.trials.test_shards import PGD, TRIAL

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(900),
    pytest.mark.usefixtures("undrawn"),
]
ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def one_gpu() -> Iterator[None]:
    """A cluster with one logical GPU and two CPUs: poisons and trials here ask for GPU shares."""
    from raygrid.engine.ray.executor import connected

    with connected(cpus=2, gpus=1):
        yield


def ray_options(folder: Path) -> Options:
    return Options(out=folder / "ray", data=folder, executor="ray", imports=("tests.plugin",))


CELLS = (("clean", "none"), ("lsp", "none"), ("lsp", "grayscale"), ("slow_shift", "grayscale"))


@dataclass(frozen=True)
class Ran:
    """One run of trials that end well, of one whose process is killed and of two that cannot."""

    specs: list[TrialSpec | str]
    folder: Path
    flag: Path  # written by the trial that is killed
    outcome: Outcome
    events: Recorder
    lines: str


@pytest.fixture(scope="module")
def ran(one_gpu: None, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("ran")
    flag, events, lines = folder / "died", Recorder(), io.StringIO()
    few = [spec for spec in GRID.specs() if (spec.attack.name, spec.defense[0].name) in CELLS]
    good = [*few, TRIAL.format(PGD)]
    ends = [SLEEP.format("clean", f"(flag={flag})"), SLEEP.format("broken", ""), WILD]
    specs = [*good, *ends]
    listener = Listeners(events, ProgressDisplay(lines))
    outcome = run_grid(specs, replace(ray_options(folder), shards=2), listener)
    return Ran(good, folder, flag, outcome, events, lines.getvalue())


def test_ray_gives_what_inline_gives_on_a_single_gpu(ran: Ran) -> None:
    """Artifacts that need the only GPU and trials that wait for them both finish.

    One poison is made by two jobs, there alone.
    """
    inline = run_grid(ran.specs, Options(out=ran.folder / "in", data=ran.folder, executor="inline"))
    here = {r.key: essence(r) for r in inline.results}
    there = {r.key: essence(r) for r in ran.outcome.results if r.key in here}
    assert there == here
    assert ran.events.artifacts.count(("shard", "made")) == 2
    assert ran.events.artifacts.count(("poison", "made")) == 3
    assert ran.events.artifacts.count(("purified", "made")) == 2
    assert {"shard", "surrogate"} <= ran.events.progressed


def test_a_second_run_starts_no_trial(ran: Ran) -> None:
    assert run_grid(ran.specs, ray_options(ran.folder)).submitted == 0


def test_a_killed_worker_costs_a_retry_not_a_trial(ran: Ran) -> None:
    assert ran.flag.exists()
    statuses = Counter(r.status for r in ran.outcome.results)
    assert statuses == {"done": len(ran.specs) + 1, "diverged": 1, "failed": 1}
    rows = (ran.folder / "ray" / "results.jsonl").read_text().splitlines()
    assert len(rows) == len(ran.specs) + 3
    assert "its worker was lost" in ran.lines


@pytest.mark.slow
def test_after_an_error_of_cuda_a_job_is_tried_once_more_by_another_process(
    one_gpu: None, tmp_path: Path
) -> None:
    log, lines = tmp_path / "lost", io.StringIO()
    lost = SLEEP.format("clean", f"(lost={log})")
    (row,) = run_grid([lost], ray_options(tmp_path), ProgressDisplay(lines)).results
    assert "its GPU failed: RuntimeError: CUDA error: device-side assert" in lines.getvalue()
    assert (row.status, "GPU failed twice" in str(row.error)) == ("failed", True)
    processes = log.read_text().split()
    assert len(processes) == len(set(processes)) == 2


@pytest.mark.parametrize("executor", ["ray", "inline"])
def test_every_option_reaches_the_worker(one_gpu: None, tmp_path: Path, executor: str) -> None:
    """None of them has its default value; what stays with the driver says so itself."""
    places = {"out": tmp_path / "out", "data": tmp_path, "store": str(tmp_path / "store")}
    ours = {"executor": executor, "imports": ("tests.plugin",)}
    ours["deadline"] = 600.0 if executor == "ray" else None
    ours["address"] = None if executor == "inline" else all_changed()["address"]
    given = Options(**{**all_changed(), **places, **ours})
    told = tmp_path / "told"
    spec = f"dots/clean/none/small_cnn/witness(file={told})/brief/0"
    outcome = run_grid([spec], given)
    assert [r.status for r in outcome.results] == ["done"]
    there = pickle.loads(told.read_bytes())
    for name in hints():
        stays = executor == "ray" and name in flags() and flags()[name].driver_only
        sent = getattr(Options(), name) if stays else getattr(given, name)
        assert getattr(there, name) == sent, name


@pytest.mark.slow
def test_paths_in_specs_are_meant_from_where_the_driver_is(
    one_gpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tune's workers sit in folders of their own; what is wrong with a file is said before them."""
    monkeypatch.chdir(tmp_path)
    np.savez("noise.npz", values=np.full((1, 3, 16, 16), 0.03, np.float32))
    spec = "dots/file(path=noise.npz{})/none/small_cnn/supervised/brief/0"
    specs = [spec.format(""), spec.format(", entry=labels")]
    outcome = run_grid(specs, replace(ray_options(tmp_path), tracking="off"))
    (row,) = outcome.results
    assert row.status == "done", row.error
    (skip,) = outcome.plan.skips
    assert skip.reason.startswith("noise.npz: unknown entry 'labels'")


@pytest.mark.slow
def test_what_a_worker_raises_stands_first_in_the_row(
    one_gpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray has its own words around it, which come behind."""
    from raygrid.engine.ray import executor

    here = {**executor.versions(), "raygrid": "9.9"}
    monkeypatch.setattr(executor, "versions", lambda: here)  # as of a driver elsewhere
    spec = "dots/clean/none/small_cnn/supervised/brief/0"
    (row,) = run_grid([spec], replace(ray_options(tmp_path), tracking="off")).results
    first, *way = str(row.error).splitlines()
    assert "ClusterError: this worker has raygrid " in first
    assert first.endswith("the driver 9.9")
    assert any("ray::" in line for line in way)


@pytest.mark.slow
def test_a_kind_that_ran_out_of_memory_does_so_no_more(one_gpu: None, tmp_path: Path) -> None:
    """Two at a time find an eighth too little; those that wait then ask for a quarter."""
    log = tmp_path / "log"
    wants = f"(hunger=0.25, log={log})"
    specs = [SLEEP.format("clean", wants).removesuffix("0") + str(seed) for seed in range(6)]
    lines = io.StringIO()
    outcome = run_grid(specs, ray_options(tmp_path), ProgressDisplay(lines))
    assert [r.status for r in outcome.results] == ["done"] * 6
    shares = [float(line) for line in log.read_text().splitlines()]
    assert set(shares) == {1 / 8}
    assert len(shares) <= 3, "without learning they are six"
    assert lines.getvalue().count("out of memory with 0.125 of a GPU") == len(shares)
    kept = ProfileStore(Store(tmp_path / "ray" / "store")).load()
    assert kept.find("A10G", "small_cnn/sleeper/128/16").least == 0.25


@pytest.mark.slow
def test_artifacts_are_tried_again_as_trials_are(one_gpu: None, tmp_path: Path) -> None:
    """One finds half of a GPU too little, one finds its GPU failed; the second has no third try."""
    shares, processes = tmp_path / "shares", tmp_path / "processes"
    hungry = SLEEP.format(f"slow_shift(hunger=0.9, log={shares})", "")
    lost = SLEEP.format(f"slow_shift(lost={processes})", "")
    lines = io.StringIO()
    outcome = run_grid([hungry, lost], ray_options(tmp_path), ProgressDisplay(lines))
    fed, broken = sorted(outcome.results, key=lambda row: row.status)
    assert (fed.status, broken.status) == ("done", "failed")
    assert shares.read_text().split() == ["0.5"], "with the whole of it there is enough"
    assert "out of memory with 0.5 of a GPU" in lines.getvalue()
    assert "its artifact failed" in str(broken.error)
    assert "its GPU failed twice" in str(broken.error)
    first, second = processes.read_text().split()
    assert first != second
