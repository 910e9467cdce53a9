"""No code comes from outside, no secret is told, nothing listens to the world."""

from __future__ import annotations

import ast
import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from raygrid.api.run_grid import Options, run_grid
from raygrid.datasets.common import holdings
from raygrid.engine.grid import Grid
from raygrid.tracking.mlflow import Tracker, check_tracking, sync
from raygrid.tracking.mlflow import writer as writer_module
from tests import plugin
from tests.patience import crowd
from tests.ports import free_port
from tests.storage.test_bucket import s3
from tests.tracking.tracked import children, drive, parents, planned, server
from tests.trees import tree

assert s3
ROOT = Path(__file__).parents[1]
FILES = sorted([*(ROOT / "raygrid").rglob("*.py"), *(ROOT / "experiments").rglob("*.py")])
BANNED = {
    "pickle.load",
    "pickle.loads",
    "marshal.loads",
    "shelve.open",
    "joblib.load",
    "yaml.load",
    "eval",
    "exec",
    "os.system",
    "shutil.unpack_archive",
    "pandas.read_pickle",
    "cloudpickle.loads",
}
SECRET = "planted-7f3a91"


def called(node: ast.Call) -> str:
    return ast.unparse(node.func)


def words(node: ast.Call) -> dict[str, str]:
    return {k.arg: ast.unparse(k.value) for k in node.keywords if k.arg}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_code_comes_from_files_or_the_network(path: Path) -> None:
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.Call):
            continue
        name, given = called(node), words(node)
        assert name not in BANNED, f"{path.name}: {name}"
        if name == "torch.load":
            assert given.get("weights_only") == "True", path.name
        if name in ("np.load", "numpy.load"):
            assert given.get("allow_pickle", "False") == "False", path.name
        if name.endswith(".extractall") and name != "packed.extractall":  # that one is a zip
            assert given.get("filter") == "'data'", path.name
        assert given.get("shell") != "True", path.name
        assert given.get("verify") != "False", path.name


def test_the_one_unpickler_builds_arrays_alone() -> None:
    """CIFAR's official files are pickles; everything but arrays in them is refused."""
    import io
    import pickle

    from raygrid.datasets.common.cifar import ArrayUnpickler

    for evil in (os.system, eval, subprocess.Popen):
        with pytest.raises(pickle.UnpicklingError, match="refuses"):
            ArrayUnpickler(io.BytesIO(pickle.dumps(evil))).load()


def test_an_archive_cannot_write_beside_its_folder(tmp_path: Path) -> None:
    packed = tmp_path / "evil.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("../../evil", "x")
        archive.writestr("/evil", "x")
    holdings.extract(packed, tmp_path / "a" / "b")
    outside = [p for p in tmp_path.rglob("evil") if (tmp_path / "a" / "b") not in p.parents]
    assert outside == []


def test_secrets_reach_no_log_and_no_file(
    tmp_path: Path,
    s3: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A run against an object store and an MLflow server that refuses, at the loudest level."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("RAYGRID_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(writer_module, "LAST_PAUSE", 0.01)
    where = f"s3://grid/secret?endpoint_override={s3}&scheme=http&region=us-east-1"
    options = Options(out=tmp_path / "out", data=tmp_path, executor="inline", store=where)
    assert plugin.CARD
    grid = Grid(datasets=["dots"], attacks=["clean"], defenses=["none"], protocols=["brief"])
    address = f"http://me:{SECRET}@127.0.0.1:{free_port()}"
    tracker = Tracker(options.out, address, every=0.01, wait=0.3)
    outcome = run_grid(grid, replace(options, tracking=address), tracker)
    assert [r.status for r in outcome.results] == ["done"]
    assert "MLflow" in caplog.text
    printed = capfd.readouterr()
    assert SECRET not in caplog.text + printed.out + printed.err
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []


def test_tune_hands_no_variables_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray writes what Tune hands on into the logs of every node."""
    pytest.importorskip("ray")
    from ray.tune.execution import class_cache

    from raygrid.engine.ray import executor

    assert executor.MAX_FAILURES
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)

    class Trainable:
        pass

    worker = class_cache._ActorClassCache().get(Trainable)
    assert not (worker._default_options.get("runtime_env") or {}).get("env_vars")


@pytest.mark.slow
def test_mlflow_refuses_other_hosts_and_serves_raygrid(tmp_path: Path) -> None:
    """The server's host check stays on; raygrid's own requests pass it."""
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    with server(tmp_path, port):
        check_tracking(uri)
        asked = Request(
            f"{uri}/api/2.0/mlflow/experiments/search",
            data=b'{"max_results": 1}',
            headers={"Host": "evil.example", "Content-Type": "application/json"},
        )
        with pytest.raises(HTTPError, match="403"):
            urlopen(asked, timeout=10)
        assert listeners(port) == {"127.0.0.1"}


def listeners(port: int) -> set[str]:
    """The addresses at which processes of this test listen on a port."""
    pytest.importorskip("ray")  # brings psutil along
    import psutil

    found = set()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            ends = [c for c in process.net_connections() if c.status == "LISTEN"]
            found |= {end.laddr.ip for end in ends if end.laddr.port == port}
    return found


@pytest.fixture
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an empty database of a real PostgreSQL server on loopback."""
    driver = pytest.importorskip("psycopg2", reason="the driver psycopg2 is not installed")
    tools = [shutil.which(name) for name in ("initdb", "postgres")]
    if None in tools:
        pytest.skip("PostgreSQL (initdb, postgres) is not installed")
    person: dict[str, Any] = {}
    if os.getuid() == 0:  # PostgreSQL does not run as root
        person = {"user": "postgres", "group": "postgres"}
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    if person:
        shutil.chown(folder, **person)
    port, log = free_port(), folder / "log"
    make = [str(tools[0]), "-D", str(folder / "data"), "-U", "raygrid", "-A", "trust"]
    subprocess.run(make, check=True, capture_output=True, cwd="/", **person)
    start = [str(tools[1]), "-D", str(folder / "data"), "-p", str(port), "-k", str(folder)]
    start += ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
    with open(os.devnull, "w") as nowhere:
        process = subprocess.Popen(start, stdout=nowhere, stderr=nowhere, cwd="/", **person)
    try:
        for _ in range(100):
            try:
                driver.connect(
                    host="127.0.0.1", port=port, user="raygrid", dbname="postgres"
                ).close()
                break
            except driver.OperationalError:
                assert process.poll() is None, log
                time.sleep(0.2)
        yield f"postgresql+psycopg2://raygrid:{SECRET}@127.0.0.1:{port}/postgres"
    finally:
        process.send_signal(signal.SIGINT)  # it ends without waiting for MLflow's connections
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_a_run_in_postgresql_is_whole_and_written_once(
    postgres: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    check_tracking(postgres)
    grid = planned()
    tracker = Tracker(tmp_path, postgres, every=0.1)
    drive(tracker, grid, grid.trials)
    tracker.close(interrupted=False)
    found = children(tmp_path, postgres)
    assert set(found) == {trial.key for trial in grid.trials}
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert [run.info.status for run in parents(tmp_path, postgres)] == ["FINISHED"]
    assert sync(tmp_path, postgres) == 0
    assert SECRET not in caplog.text


HOST = """
from raygrid.engine.ray.executor import connected
import ray
with connected(cpus=1):
    print(ray.get_runtime_context().gcs_address, flush=True)
    input()
"""
STRANGER = """
import sys, ray
print(len(ray._raylet.GcsClient(address=sys.argv[1]).internal_kv_keys(b"", None, timeout=10)))
"""


def doors(pid: int) -> set[tuple[str, int]]:
    """Addresses and ports on which a process and its children listen."""
    import psutil

    process = psutil.Process(pid)
    both = (process, *process.children(recursive=True))
    found = [c for p in both for c in p.net_connections("tcp") if c.status == "LISTEN"]
    assert len(found) > 5
    return {(c.laddr.ip.removeprefix("::ffff:"), c.laddr.port) for c in found}


def page(port: int) -> str:
    """What a port says of metrics to whoever asks."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as answer:
            text: str = answer.read(10_000).decode(errors="replace")
            return text
    except (OSError, HTTPException):
        return ""


@pytest.mark.cluster
def test_a_local_ray_is_for_this_machine_and_for_who_has_its_token(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    plain = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH")}
    home = {**plain, "HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    (tmp_path / "home").mkdir()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    host = subprocess.Popen([sys.executable, "-c", HOST], env=home, text=True, **pipes)  # type: ignore[call-overload]
    try:
        address = host.stdout.readline().strip()

        def ask(**env: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-c", STRANGER, address]
            return subprocess.run(
                command,
                env={**home, **env},
                capture_output=True,
                text=True,
                timeout=60 * crowd(),
                check=False,
            )

        friend = ask(RAY_AUTH_MODE="token")
        assert friend.returncode == 0, friend.stderr
        assert int(friend.stdout) > 0
        for stranger in (
            ask(RAY_AUTH_MODE="disabled"),
            ask(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * 64),
        ):
            assert stranger.returncode != 0
            assert "uthenticat" in stranger.stderr
        open_ = doors(host.pid)
        assert {address for address, _ in open_} == {"127.0.0.1"}
        assert not [port for _, port in open_ if "# HELP" in page(port)]
    finally:
        host.communicate("\n", timeout=60 * crowd())
