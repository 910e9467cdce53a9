"""A grid on a real Slurm of two nodes: whatever Slurm does, the rows are those of a quiet run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from raygrid.api.run_grid import Options, run_grid
from raygrid.storage.results import ResultLog
from raygrid.trials.result import Result
from tests import faulty
from tests.engine.test_run import essence
from tests.slurm_nodes import SlurmNodes, missing

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.timeout(1200),
    pytest.mark.filterwarnings("ignore"),
]
ROOT = Path(__file__).parents[2]
SPEC = "dots/{}/none/small_cnn/paced(tag={})/paces/0"
GRID = [SPEC.format("clean", 1), SPEC.format("clean", 2)]
GRID += [SPEC.format("paced_shift(tag=7)", 3), SPEC.format("paced_shift(tag=7)", 4)]


@pytest.fixture(scope="module")
def slurm() -> Iterator[SlurmNodes]:
    """A Slurm for all tests of this file."""
    if reason := missing():
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="sl"))
    made = SlurmNodes(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Site:
    """A user's folder on a Slurm cluster, with what was noted down of the trials there."""

    slurm: SlurmNodes
    folder: Path
    pause: float = 0.3
    path: str = str(ROOT)
    jobs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.folder / "faults").mkdir()

    @property
    def env(self) -> dict[str, str]:
        toys = {faulty.FOLDER: str(self.folder / "faults"), faulty.PAUSE: str(self.pause)}
        own = {"PYTHONPATH": self.path, "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
        return {**self.slurm.env, **toys, **own}

    def command(self, specs: list[str], out: str = "out", *words: str) -> list[str]:
        """`raygrid run` of a grid."""
        run = ["python", "-m", "raygrid", "run", *specs, "--import", "tests.faulty", "--quiet"]
        run += ["--out", str(self.folder / out), "--data", str(self.folder), "--tracking", "off"]
        return [*run, "--checkpoint-every", "0.01", *words]

    def submit(self, *asked: str, run: list[str]) -> subprocess.CompletedProcess[str]:
        """`raygrid submit slurm`, whatever comes of it."""
        words = [sys.executable, "-m", "raygrid", "submit", "slurm", "--json", *asked, "--", *run]
        return subprocess.run(
            words, cwd=self.folder, env=self.env, capture_output=True, text=True, check=False
        )

    def start(self, *asked: str, run: list[str]) -> str:
        """The number of a job that was submitted."""
        done = self.submit(*asked, run=run)
        assert done.returncode == 0, done.stderr
        self.jobs.append(json.loads(done.stdout)["job"])
        return self.jobs[-1]

    def log(self, job: str) -> str:
        files = sorted(self.folder.glob(f"raygrid-{job}*.log"))
        return "\n".join(file.read_text() for file in files)

    def until(self, found: Callable[[], Any], seconds: float, job: str) -> Any:
        """Ask again and again, with the job's log where it does not come."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if value := found():
                return value
            time.sleep(0.2)
        raise AssertionError(f"{self.slurm.state(job)}: {self.log(job)}")

    def ended(self, job: str, seconds: float = 600) -> str:
        """The state in which a job ended."""
        going = ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "REQUEUED", "")
        return str(
            self.until(lambda: (s := self.slurm.state(job)) not in going and s, seconds, job)
        )

    def marks(self, event: str, **facts: Any) -> list[dict[str, Any]]:
        path = self.folder / "faults" / "marks"
        lines = path.read_text().splitlines() if path.exists() else []
        marks: list[dict[str, Any]] = [json.loads(line) for line in lines]
        return [m for m in marks if {"event": event, **facts}.items() <= m.items()]

    def rows(self, out: str = "out") -> dict[str, Any]:
        log = ResultLog(self.folder / out / "results.jsonl")
        return {row["spec"]: essence(Result.from_row(row)) for row in log.rows()}

    def lines(self, out: str = "out") -> int:
        return len((self.folder / out / "results.jsonl").read_text().splitlines())


@pytest.fixture
def site(slurm: SlurmNodes, tmp_path: Path) -> Iterator[Site]:
    made = Site(slurm, tmp_path)
    try:
        yield made
    finally:
        slurm.free()
        assert leftovers(made.jobs) == []


def leftovers(jobs: list[str]) -> list[str]:
    """Processes and folders of Ray that jobs left on this machine."""
    pytest.importorskip("ray")  # brings psutil along
    import psutil

    folders = [f"rg{job}-" for job in jobs]
    found = [path.name for path in Path("/tmp").iterdir() if path.name.startswith(tuple(folders))]
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if any(folder in line for folder in folders):
            found.append(line)
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The rows of the grid, run in one process without any fault."""
    out = tmp_path_factory.mktemp("whole")
    run_grid(GRID, Options(out=out, data=out, executor="inline", imports=("tests.faulty",)))
    log = ResultLog(out / "results.jsonl")
    return {row["spec"]: essence(Result.from_row(row)) for row in log.rows()}


def test_a_grid_over_two_nodes_comes_to_its_table(site: Site, undisturbed: dict[str, Any]) -> None:
    """Ray has of each node what the job has, and no more."""
    tell = "import ray; ray.init(); print('HAS', ray.cluster_resources(), len(ray.nodes()))"
    run = ["bash", "-c", f'python -c "{tell}" && exec "$@"', "-", *site.command(GRID)]
    job = site.start("--nodes=2", "--cpus-per-node=1", "--gpus-per-node=1", run=run)
    assert site.ended(job) == "COMPLETED", site.log(job)
    assert site.rows() == undisturbed
    assert site.lines() == len(GRID)
    assert (site.folder / "out" / "tables" / "defense.md").exists()
    (has,) = re.findall(r"HAS (.*)", site.log(job))
    assert "'CPU': 2.0" in has
    assert "'GPU': 2.0" in has
    assert has.endswith(" 2")


def test_two_jobs_on_the_same_nodes_do_not_meet(site: Site, undisturbed: dict[str, Any]) -> None:
    """They hold parts of the same two machines, at the same time."""
    half = ("--nodes=2", "--cpus-per-node=2", "--gpus-per-node=1")
    first, second = (site.start(*half, run=site.command(GRID, out)) for out in ("first", "second"))
    assert (site.ended(first), site.ended(second)) == ("COMPLETED", "COMPLETED")
    for out in ("first", "second"):
        assert site.rows(out) == undisturbed
        assert site.lines(out) == len(GRID)
    shown = site.slurm.ask("scontrol", "show", "job", second, "--oneliner")
    assert "NodeList=n[1-2]" in shown
    overlap = {m["pid"] for m in site.marks("epoch")}
    assert len(overlap) >= 2


def test_a_job_that_is_out_of_time_saves_and_goes_on(
    site: Site, undisturbed: dict[str, Any]
) -> None:
    """Slurm's own signal, a minute before the limit; no epoch is trained twice."""
    site.pause = 15.0
    job = site.start("--cpus-per-node=2", "--time=3", "--notice=60", run=site.command(GRID))
    assert site.ended(job, 1100) == "COMPLETED", site.log(job)
    assert "saving" in site.log(job)
    assert "everything is saved; the job is queued again" in site.log(job)
    assert site.rows() == undisturbed
    assert site.lines() == len(GRID)
    for tag in (1, 2, 3, 4):
        assert [m["epoch"] for m in site.marks("epoch", tag=tag)] == [0, 1, 2, 3, 4, 5]


def test_a_preempted_job_saves_and_goes_on(site: Site, undisturbed: dict[str, Any]) -> None:
    """Another job takes both nodes; ours comes back when it is over."""
    site.pause = 2.0
    job = site.start("--nodes=2", "--notice=60", run=site.command(GRID))
    site.until(lambda: site.marks("epoch", epoch=1), 300, job)
    urgent = ["--partition=urgent", "--nodes=2", "--exclusive", "--wrap", "sleep 3"]
    site.slurm.tell("sbatch", "--output=/dev/null", *urgent)
    assert site.ended(job) == "COMPLETED", site.log(job)
    assert "saving" in site.log(job)
    assert site.rows() == undisturbed
    assert site.lines() == len(GRID)
    for tag in (1, 2):
        assert [m["epoch"] for m in site.marks("epoch", tag=tag)] == [0, 1, 2, 3, 4, 5]


def test_a_cancelled_job_leaves_nothing_behind(site: Site) -> None:
    """No process, no folder, no claim; the fixture looks at the machine."""
    site.pause = 3.0
    job = site.start("--nodes=2", "--cpus-per-node=1", run=site.command(GRID))
    site.until(lambda: site.marks("epoch"), 300, job)
    assert leftovers([job])
    site.slurm.tell("scancel", job)
    assert site.ended(job) == "CANCELLED"
    site.until(lambda: not leftovers([job]), 60, job)
    assert list((site.folder / "out" / "store" / "claims").glob("*.json")) == []


def test_a_drained_node_ends_its_work_and_a_lost_one_costs_an_epoch(
    site: Site, undisturbed: dict[str, Any]
) -> None:
    """Draining changes nothing for who is there; a node that goes down has the job queued again."""
    site.pause = 2.0
    job = site.start("--nodes=2", "--cpus-per-node=1", run=site.command(GRID))
    site.until(lambda: site.marks("epoch"), 300, job)
    site.slurm.tell("scontrol", "update", "NodeName=n2", "State=DRAIN", "Reason=test")
    site.until(lambda: site.marks("epoch", epoch=2), 120, job)
    assert site.slurm.state(job) == "RUNNING"
    site.slurm.tell("scontrol", "update", "NodeName=n2", "State=DOWN", "Reason=test")
    site.until(lambda: site.slurm.state(job) != "RUNNING", 120, job)
    site.slurm.tell("scontrol", "update", "NodeName=n2", "State=RESUME")
    assert site.ended(job) == "COMPLETED", site.log(job)
    assert site.rows() == undisturbed
    assert site.lines() == len(GRID)
    assert len(site.marks("end")) == len(GRID)


def test_what_slurm_refuses_is_one_line_in_its_own_words(site: Site) -> None:
    for words, said in (
        (["--partition=gpux"], "invalid partition specified: gpux"),
        (["--partition=closed"], "Invalid account or account/partition combination"),
        (["--nodes=5"], "Node count specification invalid"),
    ):
        done = site.submit(*words, run=site.command(GRID))
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert line.startswith("raygrid: Slurm refuses the job: ")
        assert said in line


def test_a_folder_that_is_not_shared_is_said_before_the_first_trial(site: Site) -> None:
    out = site.slurm.local / "out"
    job = site.start("--nodes=2", "--cpus-per-node=1", run=site.command(GRID, str(out)))
    assert site.ended(job) == "FAILED"
    assert f"raygrid: node n2 does not see {out} of the first node" in site.log(job)
    assert site.marks("epoch") == []


def test_a_node_with_another_ray_is_said_before_the_first_trial(
    site: Site,
) -> None:
    """The second node finds another version at a place where the first has none."""
    other = site.slurm.local / "other" / "ray-2.9.0.dist-info"
    site.slurm.on_second("mkdir", "-p", str(other))
    text = "Metadata-Version: 2.1\nName: ray\nVersion: 2.9.0\n"
    site.slurm.on_second("bash", "-c", 'printf "$0" > "$1/METADATA"', text, str(other))
    run = ["env", f"PYTHONPATH={ROOT}", *site.command(GRID)]
    site.path = f"{other.parent}:{ROOT}"
    job = site.start("--nodes=2", "--cpus-per-node=1", run=run)
    assert site.ended(job) == "FAILED"
    assert "raygrid: node n2 has ray 2.9.0, the first node 2." in site.log(job)
    assert site.marks("epoch") == []


def test_an_array_shares_the_grid_and_runs_no_trial_twice(site: Site) -> None:
    """Two drivers, each with a Ray of its own on a part of a node, and one store."""
    specs = [SPEC.format("clean", tag) for tag in range(20, 32)]
    job = site.start("--array=2", "--cpus-per-node=2", run=site.command(specs))
    site.until(lambda: len({m["pid"] for m in site.marks("epoch")}) >= 3, 300, job)
    site.until(lambda: not site.slurm.ask("squeue", "-h", "-j", job), 600, job)
    assert len(site.rows()) == len(specs), site.log(job)
    assert {row["status"] for row in site.rows().values()} == {"done"}
    assert sorted(m["tag"] for m in site.marks("end")) == list(range(20, 32))
    assert (site.folder / "out" / "tables" / "defense.md").exists()
    assert len(list((site.folder / "out" / "drivers").glob("*/results.jsonl"))) == 2
    assert list((site.folder / "out" / "shared" / "claims").glob("*.json")) == []
