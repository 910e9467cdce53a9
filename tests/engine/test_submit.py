"""Where a command runs, and what comes home from a cluster."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from raygrid.core.errors import ClusterError
from raygrid.engine.ray import head
from raygrid.engine.ray import submit as launch
from raygrid.engine.ray.dashboard import Tunnel, Way, wait_for_answer
from raygrid.engine.ray.homecoming import ARCHIVE_MARK, INSIDE_JOB
from raygrid.storage.results import ResultLog
from tests.patience import crowd
from tests.ports import free_ports
from tests.tracking.tracked import children, parents

ROOT = Path(__file__).parents[2]


def test_a_job_drives_the_cluster_it_is_in(tmp_path: Path) -> None:
    place = launch.decide("http://x:1", {INSIDE_JOB: "1"}, tmp_path)
    assert place == launch.Place("direct", "auto")


@pytest.mark.parametrize(
    ("address", "env", "kind"),
    [
        ("http://h:8265", {}, "jobs"),
        ("h:6379", {}, "direct"),
        (None, {"RAY_ADDRESS": "http://h:8265"}, "jobs"),
        ("local", {"RAY_ADDRESS": "http://h:8265"}, "here"),
        (None, {}, "here"),
    ],
)
def test_addresses_decide(
    address: str | None, env: dict[str, str], kind: str, tmp_path: Path
) -> None:
    assert launch.decide(address, env, tmp_path).kind == kind


def asked(monkeypatch: pytest.MonkeyPatch, status: int, stdout: str = "", stderr: str = "") -> None:
    """Let Ray answer this when it is asked for a head."""
    done = subprocess.CompletedProcess([], status, stdout=stdout, stderr=stderr)
    monkeypatch.setattr(head, "_ray", lambda *words: done)


NO_HEAD = "Traceback:\nRuntimeError: Head node of cluster (x) not found!\n"


def test_a_live_cluster_file_is_taken_and_a_dead_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cluster.yaml").write_text("provider: {type: local}\n")
    asked(monkeypatch, 0, "loaded\n10.0.0.1\n")
    assert launch.decide(None, {}, tmp_path).kind == "tunnel"
    asked(monkeypatch, 1, stderr=NO_HEAD)
    assert launch.decide(None, {}, tmp_path).kind == "here"


def test_ray_says_of_a_cluster_that_is_not_up_what_is_taken_for_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release that says it otherwise would make an error of each run without a cluster."""
    provider = "provider: {type: local, head_ip: 127.0.0.9, worker_ips: []}\n"
    (tmp_path / "cluster.yaml").write_text(f"cluster_name: {tmp_path.name}\n{provider}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert launch.decide(None, {}, tmp_path) == launch.Place("here")


def test_a_cluster_that_cannot_be_asked_about_is_no_lack_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the cluster up and paid for, the grid began on the laptop without a word."""
    file = tmp_path / "cluster.yaml"
    file.write_text("provider: {type: local}\n")
    asked(monkeypatch, 1, stderr="Traceback:\nNoCredentialsError: Unable to locate credentials\n")
    with pytest.raises(ClusterError) as caught:
        launch.decide(None, {}, tmp_path)
    assert str(caught.value) == (
        f"cannot tell whether the cluster of {file} is up: NoCredentialsError: Unable to locate "
        "credentials; `--address local` or RAYGRID_CLUSTER=off runs on this machine"
    )
    assert launch.decide("local", {}, tmp_path).kind == "here"
    assert launch.decide(None, {"RAYGRID_CLUSTER": "off"}, tmp_path).kind == "here"
    file.write_text("provider: {type: local}\nstore: s3://YOUR-BUCKET/raygrid\n")
    assert launch.decide(None, {}, tmp_path).kind == "here"


def test_a_cloud_whose_library_is_missing_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("provider: {type: gcp}\n")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "mine.json")
    monkeypatch.setitem(head.LIBRARIES, "gcp", ("google-client", "no_such_module"))
    monkeypatch.setattr(head, "_ray", lambda *words: pytest.fail("the cloud was asked"))
    with pytest.raises(ClusterError, match=r"google-client: `uv run --extra gcp .*`, or .*; `--ad"):
        launch.decide(None, {}, tmp_path)
    file.write_text("provider: {type: gcp, project_id: YOUR-PROJECT}\n")
    assert launch.decide(None, {}, tmp_path).kind == "here"


def test_a_cloud_without_credentials_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cluster.yaml").write_text("provider: {type: aws}\n")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(head, "_ray", lambda *words: pytest.fail("the cloud was asked"))
    assert launch.decide(None, {}, tmp_path).kind == "here"


def test_a_file_that_is_no_cluster_file_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text("- 1\n")
    with pytest.raises(ClusterError, match="is not a cluster file"):
        launch.decide(None, {}, tmp_path)


def test_a_closed_dashboard_port_is_one_error() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ClusterError, match="no Ray dashboard answers at"):
        wait_for_answer(address, 0.1)


@pytest.fixture
def cluster() -> Iterator[str]:
    """A real head on loopback with a dashboard, in a folder and process group of its own."""
    folder = tempfile.mkdtemp(prefix="rg")
    gcs, dashboard, client, agent = free_ports(4)
    ports = {"--port": gcs, "--dashboard-port": dashboard, "--ray-client-server-port": client}
    command = [sys.executable, "-m", "raygrid.engine.ray.start", "start", "--head", "--block"]
    command += [f"{name}={port}" for name, port in ports.items()]
    command += ["--num-cpus=2", f"--temp-dir={folder}", "--disable-usage-stats"]
    command += ["--dashboard-host=127.0.0.1", f"--dashboard-agent-listen-port={agent}"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "RAY_AUTH_MODE": "disabled", "PATH": path}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env=env, start_new_session=True, **quiet)  # type: ignore[call-overload]
    try:
        address = f"http://127.0.0.1:{dashboard}"
        wait_for_answer(address, 120 * crowd())
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def quick_command(cluster: str, out: Path, *attacks: str, epochs: int = 1) -> list[str]:
    command = [sys.executable, "experiments/full_grid.py", "--scale", "quick", "--address", cluster]
    command += ["--attacks", *attacks, "--defenses", "none", "--learners", "supervised"]
    command += ["--architectures", "small_cnn", "--protocols", f"quick(epochs={epochs})"]
    command += ["--budgets", "default", "--poison-ratios", "1"]
    return [*command, "--out", str(out)]


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_the_command_submits_itself_and_brings_its_tables_home(
    cluster: str, tmp_path: Path
) -> None:
    command = quick_command(cluster, tmp_path / "out", "clean")
    env = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "job raygrid-full_grid-quick-" in done.stderr
    assert ARCHIVE_MARK not in done.stdout
    assert (tmp_path / "out" / "tables" / "defense.md").exists()
    assert (tmp_path / "out" / "report.html").exists()


def kill_job(out: Path, follower: int) -> None:
    """End the command with this folder that runs in the cluster, not the one that follows it."""
    import psutil

    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if str(out) in process.cmdline() and process.pid != follower:
                process.kill()


@pytest.mark.parametrize(
    ("argv", "there"),
    [
        (["/home/me/p/.venv/bin/raygrid", "run", "a b"], ["-m", "raygrid", "run", "a b"]),
        (["/opt/raygrid/__main__.py", "reproduce"], ["-m", "raygrid", "reproduce"]),
        (["experiments/full_grid.py", "--detach"], ["experiments/full_grid.py"]),
        (["{root}/experiments/full_grid.py", "--json"], ["experiments/full_grid.py", "--json"]),
    ],
)
def test_a_program_is_named_by_its_place_in_the_tree(
    argv: list[str], there: list[str], tmp_path: Path
) -> None:
    """The path of a console script is one of this machine: each submitted `raygrid run` failed."""
    assert launch.words_there([word.format(root=tmp_path) for word in argv], tmp_path) == there


def test_a_program_outside_of_the_tree_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"/elsewhere/mine.py is outside of"):
        launch.words_there(["/elsewhere/mine.py"], tmp_path)


class Distant:
    """A cluster that a sleeping laptop cannot reach at first."""

    def __init__(self) -> None:
        self.asked = 0

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        if self.asked < 2:
            raise ConnectionError("no route")
        yield "a line\n"

    def get_job_status(self, job: str) -> SimpleNamespace:
        self.asked += 1
        if self.asked < 3:
            raise ConnectionError("no route")
        return SimpleNamespace(value="SUCCEEDED")

    def get_job_logs(self, job: str) -> str:
        return "a line\nthe last\n"


def test_a_lost_connection_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command ended with an error where it was asked how the job is."""
    monkeypatch.setattr(launch.time, "sleep", lambda seconds: None)
    distant = Distant()
    assert launch.ClusterJob(distant, "raygrid-x").follow(tmp_path) == 0
    assert distant.asked == 3
    told = capsys.readouterr()
    assert told.out == "a line\nthe last\n"
    assert told.err == "no connection to the cluster (no route); trying again\n"


class Head:
    """Knows jobs by their ids, and takes new ones."""

    def __init__(self) -> None:
        self.jobs: dict[str, str] = {}

    def get_job_status(self, job: str) -> SimpleNamespace:
        if job not in self.jobs:
            raise RuntimeError("Request failed with status code 404")
        return SimpleNamespace(value=self.jobs[job])

    def submit_job(self, submission_id: str, **facts: object) -> None:
        assert submission_id not in self.jobs
        self.jobs[submission_id] = "PENDING"


def test_a_command_joins_its_job_that_runs_and_is_a_new_one_after_those_that_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Head()
    monkeypatch.setattr(launch, "connect_jobs", lambda way: there)

    def submitted(*words: str) -> str:
        way = Way("http://head:8265")
        return launch.ClusterJob.submit(way, tmp_path, ["raygrid", "run", *words], "mine").id

    first = submitted()
    assert (submitted(), submitted("--quiet"), submitted("--detach")) == (first,) * 3
    there.jobs[first] = "RUNNING"
    assert submitted() == first
    stem = first.removesuffix("-0")
    for number, ended in enumerate(launch.ENDED_JOB_STATES):
        there.jobs[f"{stem}-{number}"] = ended
        assert submitted() == f"{stem}-{number + 1}"
    assert there.jobs == {
        **{f"{stem}-{n}": ended for n, ended in enumerate(launch.ENDED_JOB_STATES)},
        f"{stem}-{len(launch.ENDED_JOB_STATES)}": "PENDING",
    }


def test_a_head_that_does_not_tell_how_a_job_is_is_one_error() -> None:
    class Silent:
        def get_job_status(self, job: str) -> SimpleNamespace:
            raise RuntimeError("Request failed with status code 500")

    with pytest.raises(ClusterError, match=r"does not tell about raygrid-x: Request .* 500"):
        launch.ClusterJob(Silent(), "raygrid-x").status()


class Interrupted(Distant):
    """Its log breaks off in the middle and begins anew."""

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        yield "one\n"
        if not self.asked:
            raise RuntimeError("WebSocket closed with code 1006")
        yield "two\n"

    def get_job_logs(self, job: str) -> str:
        return "one\ntwo\n"


def test_a_log_that_breaks_off_is_not_printed_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launch.time, "sleep", lambda seconds: None)
    assert launch.ClusterJob(Interrupted(), "raygrid-x").follow(tmp_path) == 0
    assert capsys.readouterr().out == "one\ntwo\n"


def test_a_full_disk_here_is_no_lost_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log was fetched again every second, without end."""

    def full(log: str, folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(launch.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(launch, "unpack_home", full)
    with pytest.raises(OSError, match="No space left"):
        launch.ClusterJob(Interrupted(), "raygrid-x").follow(tmp_path)


class Left(Distant):
    """A person presses Ctrl-C while its log is printed."""

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        yield "a line\n"
        raise KeyboardInterrupt


@pytest.mark.parametrize("tunnel", [False, True])
def test_who_leaves_a_job_is_told_that_it_goes_on_and_how_to_end_it(
    tunnel: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It was said to be stopped, while the cluster and its cost went on."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token" if tunnel else "disabled")
    way = Way("http://head:1", tmp_path / "cluster.yaml" if tunnel else None)
    assert launch.ClusterJob(Left(), "raygrid-x", way).follow(tmp_path) == 130
    told = capsys.readouterr()
    assert told.out == "a line\n"
    first, second = told.err.splitlines()
    assert first == "the job raygrid-x goes on at the cluster; the same command joins it again"
    assert second == (
        f"to end it: `ray dashboard {way.config}` and, in another terminal, `RAY_AUTH_MODE=token "
        "ray job stop raygrid-x --address http://127.0.0.1:8265`"
        if tunnel
        else "to end it: `ray job stop raygrid-x --address http://head:1`"
    )


class Replaced(Distant):
    """The head was lost, and the new one knows no jobs."""

    def get_job_status(self, job: str) -> SimpleNamespace:
        raise RuntimeError("Request failed with status code 404: job does not exist")


def test_a_job_that_nobody_knows_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch.time, "sleep", lambda seconds: None)
    with pytest.raises(ClusterError, match="its head is another one now"):
        launch.ClusterJob(Replaced(), "raygrid-x").follow(tmp_path)


class Mute(Distant):
    """Its head says how the job ended; the agent that has the log is down for a while."""

    def __init__(self, refusals: int) -> None:
        super().__init__()
        self.asked, self.refusals = 2, refusals

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        raise RuntimeError("no agent")
        yield

    def get_job_logs(self, job: str) -> str:
        self.refusals -= 1
        if self.refusals >= 0:
            raise RuntimeError("Request failed with status code 500: agent not found.\nTraceback")
        return "a line\n"


def test_the_log_of_a_job_that_ended_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launch.time, "sleep", lambda seconds: None)
    assert launch.ClusterJob(Mute(launch.FORGOTTEN_ANSWERS - 1), "raygrid-x").follow(tmp_path) == 0
    assert capsys.readouterr().out == "a line\n"
    says = r"raygrid-x ended, but .* its log.* home \(Request .* 500: agent not found\.\); run the"
    with pytest.raises(ClusterError, match=says):
        launch.ClusterJob(Mute(launch.FORGOTTEN_ANSWERS), "raygrid-x").follow(tmp_path)


def test_a_tunnel_that_ended_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ray dashboard` of a cluster that is not there ends at once, as with its connection."""
    (tmp_path / "cluster.yaml").write_text("cluster_name: x\n")
    tunnel = Tunnel(tmp_path / "cluster.yaml")
    tunnel.command = [sys.executable, "-c", "import time; time.sleep(60)"]
    first = tunnel.process
    first.kill()
    first.wait()
    tunnel.renew()
    assert tunnel.process is not first
    assert tunnel.process.poll() is None
    second = tunnel.process
    tunnel.renew()
    assert tunnel.process is second
    tunnel.close()
    assert second.poll() is not None


@pytest.mark.cluster
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")
def test_a_killed_job_is_taken_up_by_the_same_command(cluster: str, tmp_path: Path) -> None:
    """What the first job finished is not run again, and MLflow shows each trial once."""
    pytest.importorskip("ray")  # brings psutil along, and takes its time
    out = tmp_path / "out"
    command = quick_command(cluster, out, "clean", "lsp", "regions", epochs=8)
    env = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    log = ResultLog(out / "results.jsonl")
    with subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.DEVNULL) as first:
        until = time.monotonic() + 240
        while not list(log.rows()) and first.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.1)
        kill_job(out, first.pid)
    assert first.returncode == 1
    before = list(log.rows())
    assert len(before) < 3
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{3 - len(before)} trials run" in done.stdout
    assert list(log.rows())[: len(before)] == before
    assert len((out / "results.jsonl").read_text().splitlines()) == 3
    assert {run.info.status for run in children(out).values()} == {"FINISHED"}
    assert len(children(out)) == 3
    assert [run.info.status for run in parents(out)] == ["FINISHED"]
