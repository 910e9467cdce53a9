"""Whatever breaks in a cluster: the table is that of an undisturbed run, and nothing ran twice.

A driver in a process of its own runs a small grid on a real cluster of several Ray nodes. Every
node has its own local side of the store, lost with the node, as on machines of their own.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlencode

import pytest

from raygrid.api.run_grid import Options, run_grid
from raygrid.engine.ray.private import NODE_START_SECONDS, patient_start
from raygrid.storage.results import ResultLog
from raygrid.trials.result import Result
from tests import faulty
from tests.engine.test_run import essence
from tests.patience import crowd, until
from tests.ports import free_port
from tests.tracking.tracked import children, parents

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(1800),  # the last resort: waits end where nothing goes on
    pytest.mark.filterwarnings("ignore"),
]
ray = pytest.importorskip("ray")
ROOT = Path(__file__).parents[2]
SPEC = "dots/{}/none/small_cnn/paced(tag={})/paces/0"
CLEAN = [SPEC.format("clean", tag) for tag in (1, 2)]
POISONED = [SPEC.format("paced_shift(tag=7)", tag) for tag in (3, 4)]
GRID = [*CLEAN, *POISONED]
WORDS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
QUICK_DEATH = {"RAY_health_check_period_ms": "500", "RAY_health_check_failure_threshold": "3"}


@pytest.fixture(scope="module")
def head() -> Iterator[Any]:
    """A cluster of a head without CPUs, in a folder of its own, ended by its own handle."""
    from ray.cluster_utils import Cluster

    folder = Path(tempfile.mkdtemp(prefix="rf"))
    (folder / "ray").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        own = {"RAY_TMPDIR": str(folder), "PYTHONPATH": str(ROOT)}
        for name, value in {**WORDS, **QUICK_DEATH, **ObjectStore.keys, **own}.items():
            patch.setenv(name, value)
        patch.setenv("RAYGRID_CACHE", str(folder / "cache"))
        patch.setattr(Cluster._wait_for_node, "__defaults__", (NODE_START_SECONDS * crowd(),))
        try:
            with patient_start(NODE_START_SECONDS * crowd()):  # for its nodes too
                cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
                yield cluster
        finally:
            cluster.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Lab:
    """A cluster to break, a store that survives it, and what the toy methods noted down."""

    cluster: Any
    folder: Path
    store: str
    database: Path
    pause: float = 0.7
    nodes: dict[str, Any] = field(default_factory=dict)
    drivers: list[Driver] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.folder / "faults").mkdir()

    def env(self, name: str) -> dict[str, str]:
        """What sets a machine apart from the others."""
        return {
            "RAYGRID_CACHE": str(self.folder / f"disk-{name}"),
            faulty.FOLDER: str(self.folder / "faults"),
            faulty.PAUSE: str(self.pause),
            faulty.NODE: name,
            "OMP_NUM_THREADS": "1",
        }

    def start(self, *names: str, **resources: Any) -> None:
        """Add nodes of one CPU each."""
        for name in names:
            given = {"num_cpus": 1, **resources}
            self.nodes[name] = self.cluster.add_node(env_vars=self.env(name), **given)

    def kill(self, name: str) -> None:
        """A machine is gone: all its processes at once, and its disk."""
        node = self.nodes.pop(name)
        for process in _tree(node.all_processes["raylet"][0].process.pid):
            process.kill()
        self.cluster.remove_node(node, allow_graceful=False)
        shutil.rmtree(self.folder / f"disk-{name}", ignore_errors=True)

    def give_notice(self, name: str) -> None:
        """What the cloud's notice leads to: the node drains, and has a minute left."""
        from raygrid.engine.ray.preemption import drain

        drain(self.cluster.address, self.nodes[name].node_id, 60)

    def order(self, what: str, tag: int) -> None:
        """Have one process carry out a fault."""
        (self.folder / "faults" / f"{what}-{tag}").touch()

    def drive(self, specs: list[str], *words: str, out: str = "out") -> Driver:
        """Start a driver; it is not waited for."""
        driver = Driver(self, self.folder / out, specs, words)
        self.drivers.append(driver)
        return driver

    def marks(self, event: str | None = None) -> list[dict[str, Any]]:
        """What was noted down so far, in order."""
        path = self.folder / "faults" / "marks"
        lines = path.read_text().splitlines() if path.exists() else []
        marks: list[dict[str, Any]] = [json.loads(line) for line in lines]
        return [m for m in marks if event in (None, m["event"])]

    def when(self, event: str, seconds: float = 90, **facts: Any) -> dict[str, Any]:
        """Wait until something with these facts was noted down."""

        def found() -> dict[str, Any] | None:
            fits = (m for m in self.marks(event) if facts.items() <= m.items())
            return next(fits, None)

        return self.until(found, seconds, lambda: f"{event} {facts}: {self.marks()}")

    def until(
        self, found: Callable[[], Any], seconds: float = 90, story: Callable[[], str] = str
    ) -> Any:
        """Wait as long as toy methods or drivers have something new to say."""
        return until(found, seconds, lambda: f"{story()} {self.words()}", self.progress)

    def progress(self) -> list[int]:
        """How much was noted down and printed so far."""
        files = [self.folder / "faults" / "marks", *(driver.log for driver in self.drivers)]
        return [file.stat().st_size if file.exists() else 0 for file in files]

    def words(self) -> str:
        return "\n".join(driver.words() for driver in self.drivers)

    def end(self) -> None:
        for driver in self.drivers:
            driver.kill()
        for name in list(self.nodes):
            self.kill(name)


class Driver:
    """`raygrid run` in a process of its own."""

    def __init__(self, lab: Lab, out: Path, specs: list[str], words: tuple[str, ...]) -> None:
        self.lab, self.out = lab, out
        if not out.exists():
            out.mkdir()
            shutil.copy(lab.database, out / "mlflow.db")
        command = [sys.executable, "-m", "raygrid", "run", *specs, "--import", "tests.faulty"]
        command += ["--address", lab.cluster.address, "--out", str(out), "--store", lab.store]
        command += ["--data", str(lab.folder), "--quiet", "--checkpoint-every", "0.01", *words]
        self.log = out.with_name(f"{out.name}.log")
        env = {**os.environ, **lab.env("driver")}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=env, stdout=log, stderr=log, start_new_session=True
            )

    def words(self) -> str:
        """The last of what it printed."""
        return self.log.read_text()[-3000:]

    def wait(self, seconds: float = 120) -> int:
        """Its exit status."""
        status: int = self.lab.until(self.process.poll, seconds, lambda: "the driver did not end")
        return status

    def kill(self) -> None:
        """Without warning."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def rows(self) -> dict[str, Result]:
        log = ResultLog(self.out / "results.jsonl")
        return {row["spec"]: Result.from_row(row) for row in log.rows()}


def _tree(pid: int) -> list[Any]:
    import psutil

    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


@pytest.fixture
def lab(head: Any, mlflow_template: Path, tmp_path: Path) -> Iterator[Lab]:
    made = Lab(head, tmp_path, (tmp_path / "store").as_uri(), mlflow_template)
    try:
        yield made
    finally:
        made.end()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[str]], Path]:
    """The output folder of a grid that ran in one process without any fault."""
    known: dict[tuple[str, ...], Path] = {}

    def run(specs: list[str]) -> Path:
        if tuple(specs) not in known:
            out = tmp_path_factory.mktemp("whole")
            run_grid(specs, Options(out=out, data=out, executor="inline"))
            known[tuple(specs)] = out
        return known[tuple(specs)]

    return run


Undisturbed = Callable[[list[str]], Path]


def assert_whole(driver: Driver, reference: Path, tracked: bool = True) -> None:
    """Rows, tables and MLflow are those of an undisturbed run; every trial has one row."""
    whole = {r["spec"]: Result.from_row(r) for r in ResultLog(reference / "results.jsonl").rows()}
    rows = driver.rows()
    assert {s: essence(r) for s, r in rows.items()} == {s: essence(r) for s, r in whole.items()}
    lines = (driver.out / "results.jsonl").read_text().splitlines()
    assert len(lines) == len(whole), "a trial ran twice to the end"
    assert table(driver.out) == table(reference)
    if tracked:
        assert_tracked(driver)


def table(out: Path) -> list[list[str]]:
    """The main table."""
    with (out / "tables" / "defense.csv").open() as file:
        return list(csv.reader(file))


def assert_tracked(driver: Driver, uri: str | None = None) -> None:
    """MLflow has one run a row, ended as the row says, under one parent."""
    rows = {row.key: row for row in driver.rows().values()}
    runs = children(driver.out, uri)
    assert set(runs) == set(rows)
    for key, run in runs.items():
        assert run.info.status == ("FINISHED" if rows[key].status == "done" else "FAILED")
        assert run.data.tags["raygrid.status"] == rows[key].status
    assert [run.info.status for run in parents(driver.out, uri)] == ["FINISHED"]


def damage(folder: Path, pattern: str, size: int | None = None) -> int:
    """Flip a byte of all files that fit, or cut them; how many there were."""
    files = list(folder.glob(pattern))
    for file in files:
        content = file.read_bytes()
        file.write_bytes(content[:size] if size else content[:-1] + bytes([content[-1] ^ 1]))
    return len(files)


def assert_ended_once(lab: Lab) -> None:
    """No trial was trained to its end twice."""
    ends = [m["tag"] for m in lab.marks("end")]
    assert len(ends) == len(set(ends)), ends


# Nodes


def test_a_node_lost_while_it_trains_costs_its_last_epoch(
    lab: Lab, undisturbed: Undisturbed
) -> None:
    lab.start("a", "b")
    driver = lab.drive(GRID)
    lost = lab.when("epoch", epoch=3)
    lab.kill(lost["node"])
    lab.start("c")
    assert driver.wait() == 0, driver.words()
    assert_whole(driver, undisturbed(GRID))
    assert_ended_once(lab)
    epochs = [m["epoch"] for m in epochs_of(lab, lost["tag"])]
    assert epochs in ([0, 1, 2, 3, 3, 4, 5], [0, 1, 2, 3, 4, 5]), "it did not go on where it was"


def test_trials_prefer_the_node_that_has_their_poison(lab: Lab, undisturbed: Undisturbed) -> None:
    """Three trials of a poison run on one node, with few exceptions.

    Without a preference a quarter of the poisons would, and 7.5 trials of 18 would find their
    poison there, 10 or more with a probability of 4 %.
    """
    lab.pause = 0.1
    lab.start("a", "b")
    poisons = {tag: 7 + tag % 6 for tag in range(20, 38)}
    specs = [SPEC.format(f"paced_shift(tag={p})", tag) for tag, p in poisons.items()]
    driver = lab.drive(specs)
    assert driver.wait() == 0, driver.words()
    assert_whole(driver, undisturbed(specs))
    ran = [(m["node"], poisons[m["tag"]]) for m in lab.marks("epoch") if m["epoch"] == 0]
    assert {node for node, _ in ran} == {"a", "b"}
    assert sum(place in ran[:number] for number, place in enumerate(ran)) >= 10, ran


def test_a_node_lost_while_it_makes_an_artifact_costs_nothing_else(
    lab: Lab, undisturbed: Undisturbed
) -> None:
    lab.start("a", "b")
    driver = lab.drive(POISONED)
    maker = lab.when("make")
    lab.kill(maker["node"])
    assert driver.wait() == 0, driver.words()
    assert_whole(driver, undisturbed(POISONED))
    assert len(lab.marks("made")) == 1
    assert_ended_once(lab)


def test_a_node_lost_with_the_only_copy_of_an_artifact(lab: Lab, undisturbed: Undisturbed) -> None:
    """It is loaded again from the store, not made again."""
    lab.start("a")
    driver = lab.drive(POISONED)
    lab.when("epoch", epoch=0)
    lab.start("b")
    lab.kill("a")
    assert driver.wait() == 0, driver.words()
    assert_whole(driver, undisturbed(POISONED))
    assert len(lab.marks("made")) == 1
    assert_ended_once(lab)


def test_a_node_with_notice_keeps_its_epochs(lab: Lab, undisturbed: Undisturbed) -> None:
    """Its trial saves its state and goes on elsewhere, long before the next checkpoint is due."""
    lab.start("a", "b")
    driver = lab.drive(CLEAN, "--checkpoint-every", "3600")
    told = lab.when("epoch", epoch=2)
    lab.give_notice(told["node"])
    lab.until(lambda: any(m["pid"] != told["pid"] for m in epochs_of(lab, told["tag"])) or None)
    lab.kill(told["node"])
    assert driver.wait() == 0, driver.words()
    assert_whole(driver, undisturbed(CLEAN))
    assert [m["epoch"] for m in epochs_of(lab, told["tag"])] == [0, 1, 2, 3, 4, 5]
    assert {m["node"] for m in epochs_of(lab, told["tag"])} == {"a", "b"}


def epochs_of(lab: Lab, tag: int) -> list[dict[str, Any]]:
    return [m for m in lab.marks("epoch") if m["tag"] == tag]


# Trials


def test_trials_that_misbehave_cost_only_themselves(
    lab: Lab, undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One runs out of memory, one hangs, one diverges, one finds damaged artifacts."""
    diverging = "dots/clean/none/small_cnn/paced(diverges=true, tag=5)/paces/0"
    specs = [*CLEAN, POISONED[0], diverging]
    monkeypatch.setenv("RAYGRID_CACHE", str(lab.folder / "disk-another"))
    options = Options(out=lab.folder / "before", data=lab.folder, store=lab.store)
    before = run_grid([SPEC.format("paced_shift(tag=7)", 9)], replace(options, executor="inline"))
    assert before.results[0].status == "done"
    remote = Path(lab.store.removeprefix("file://"))
    shutil.rmtree(remote / "results")
    assert damage(remote, "artifacts/poison/*/*.safetensors") == 1
    assert damage(remote, "artifacts/dataset/*/*.safetensors", 100) == 1
    lab.order("memory", 1)
    lab.order("hang", 2)
    lab.start("a", "b", num_gpus=1)
    driver = lab.drive(specs, "--deadline", "20")
    assert driver.wait() == 0, driver.words()
    assert_whole(driver, undisturbed(specs))
    rows = driver.rows()
    assert rows[diverging].status == "diverged"
    assert [len(lab.marks(what)) for what in ("memory", "hang", "made")] == [1, 1, 1]
    assert_ended_once(lab)
    again = lab.drive(specs)
    assert again.wait() == 0, again.words()
    assert "0 trials run" in again.words(), "a diverged trial is done"


# Drivers


def test_a_killed_driver_started_again_goes_on(lab: Lab, undisturbed: Undisturbed) -> None:
    """MLflow's database is locked meanwhile."""
    lab.start("a")
    driver = lab.drive(CLEAN)
    first = lab.when("end")["tag"]
    second = lab.when("epoch", tag=3 - first, epoch=2)
    driver.kill()
    again = lab.drive(CLEAN)
    lab.until(lambda: epochs_of(lab, second["tag"])[-1]["pid"] != second["pid"] or None)
    with contextlib.closing(sqlite3.connect(driver.out / "mlflow.db")) as database:
        database.execute("BEGIN EXCLUSIVE")
        lab.when("end", tag=second["tag"])
        time.sleep(5)
    assert again.wait() == 0, again.words()
    assert_whole(again, undisturbed(CLEAN))
    assert_ended_once(lab)
    assert [m["epoch"] for m in epochs_of(lab, first)] == [0, 1, 2, 3, 4, 5]
    assert epochs_of(lab, second["tag"])[3]["epoch"] in (2, 3), "it began anew"


def test_two_drivers_of_one_grid_run_each_trial_once(lab: Lab, undisturbed: Undisturbed) -> None:
    """The second one is refused while the first runs, and finds its rows afterwards."""
    for tag in (1, 2):
        lab.order("hold", tag)
    lab.start("a")
    first = lab.drive(CLEAN)
    claims = Path(lab.store.removeprefix("file://")) / "claims"
    lab.until(lambda: next(claims.glob("*.json"), None))
    second = lab.drive(CLEAN, out="other")
    assert second.wait() == 2, second.words()
    assert f"works on 2 of these trials (process {first.process.pid} on" in second.words()
    for tag in (1, 2):
        (lab.folder / "faults" / f"hold-{tag}").unlink()
    assert first.wait() == 0, first.words()
    assert_whole(first, undisturbed(CLEAN))
    third = lab.drive(CLEAN, out="other")
    assert third.wait() == 0, third.words()
    assert_whole(third, undisturbed(CLEAN))
    assert_ended_once(lab)


# Services


class ObjectStore:
    """An S3 server that may go away and come back with all it had."""

    keys: ClassVar = {  # in every node's environment, as a machine's role would be
        "AWS_ACCESS_KEY_ID": "test-id",
        "AWS_SECRET_ACCESS_KEY": "planted-secret-7f3a",
        "AWS_EC2_METADATA_DISABLED": "true",
    }

    def __init__(self) -> None:
        self.port = free_port()
        self.start()

    def start(self) -> None:
        from moto.server import ThreadedMotoServer

        self.server = ThreadedMotoServer("127.0.0.1", self.port, verbose=False)
        self.server.start()

    def stop(self) -> None:
        self.server.stop()

    def url(self, bucket: str) -> str:
        """A new bucket's address."""
        from pyarrow.fs import S3FileSystem

        where = {"endpoint_override": f"127.0.0.1:{self.port}", "scheme": "http"}
        system = S3FileSystem(region="us-east-1", allow_bucket_creation=True, **where)
        system.create_dir(bucket)
        return f"s3://{bucket}/runs?{urlencode({**where, 'region': 'us-east-1'})}"


@pytest.fixture
def s3() -> Iterator[ObjectStore]:
    made = ObjectStore()
    yield made
    made.stop()


def test_an_object_store_that_is_away_costs_time_alone(
    lab: Lab, undisturbed: Undisturbed, s3: ObjectStore
) -> None:
    """It goes while an artifact is made and a trial trains. Then a node goes with its disk.

    Neither logs nor output hold the credentials.
    """
    specs = [CLEAN[0], POISONED[0]]
    lab.store = s3.url("grid")
    lab.start("a", "b")
    driver = lab.drive(specs)
    lab.when("epoch", tag=1)
    lab.when("make", tag=7)
    s3.stop()
    lab.when("end", tag=1)
    lab.when("made", tag=7)
    time.sleep(15)
    s3.start()
    lab.kill(lab.when("epoch", tag=3, epoch=3)["node"])
    assert driver.wait() == 0, driver.words()
    assert_whole(driver, undisturbed(specs))
    assert_ended_once(lab)
    assert len(lab.marks("made")) == 1
    assert epochs_of(lab, 3)[4]["epoch"] in (3, 4), "it began anew"
    secret = ObjectStore.keys["AWS_SECRET_ACCESS_KEY"].encode()
    for folder in (lab.folder, Path(os.environ["RAY_TMPDIR"])):
        leaks = [f for f in folder.rglob("*") if f.is_file() and secret in f.read_bytes()]
        assert leaks == []
