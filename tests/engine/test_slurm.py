"""The batch script, what a job was given, and what is said where it cannot be submitted or run."""

from __future__ import annotations

import importlib.metadata
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from raygrid.cli.main import main
from raygrid.core.errors import ClusterError, SpecError, StoreError
from raygrid.engine import notice
from raygrid.engine.ray import mps
from raygrid.engine.slurm.allocation import Allocation, private_folder
from raygrid.engine.slurm.job import Command, folders_of, job_main, probes_in
from raygrid.engine.slurm.node import RayNode
from raygrid.engine.slurm.script import SlurmRequest, batch_script
from raygrid.engine.slurm.submission import slurm_words
from raygrid.engine.slurm.worker import fault_here, versions_here

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "experiments" / "clusters" / "slurm.sh"
RUN = ["python", "experiments/full_grid.py", "--scale", "paper"]
GIVEN = {
    "SLURM_JOB_ID": "4711",
    "SLURMD_NODENAME": "n1",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_CPUS_ON_NODE": "3",
    "SLURM_GPUS_ON_NODE": "1",
    "SLURM_MEM_PER_NODE": "2000",
}


def directives(script: str) -> list[str]:
    """The options of sbatch in a script."""
    lines = [line for line in script.splitlines() if line.startswith("#SBATCH ")]
    return [line.removeprefix("#SBATCH ") for line in lines]


def test_the_shipped_script_is_what_the_command_shows(capsys: pytest.CaptureFixture[str]) -> None:
    """The script names the very command that makes it."""
    (line,) = [line for line in SHIPPED.read_text().splitlines() if "raygrid submit" in line]
    words = line.removeprefix("#").split()
    assert main([*words[1:3], "--print", *words[3:]]) == 0
    assert capsys.readouterr().out == SHIPPED.read_text()
    assert words[words.index("--") + 1 :] == RUN


def test_bash_accepts_the_shipped_script() -> None:
    assert subprocess.run(["bash", "-n", SHIPPED], check=False).returncode == 0


def test_a_job_leaves_no_folder_of_its_own_daemon_and_that_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    own, other = (mps.home({"SLURM_JOB_ID": job}) for job in ("4711", "4712"))
    for folder in (own, other, tmp_path / "ray"):
        folder.mkdir()
    head = RayNode(Allocation.of(GIVEN))
    head.folder = tmp_path / "ray"
    head.stop()
    assert list(tmp_path.iterdir()) == [other]


def test_a_request_becomes_options_of_sbatch() -> None:
    request = SlurmRequest(
        nodes=2, gpus_per_node=4, time="2-12:00", partition="gpu", account="lab", notice=120
    )
    found = directives(batch_script(request, RUN, ["raygrid"]))
    for word in ("--nodes=2", "--gpus-per-node=4", "--cpus-per-task=32", "--time=2-12:00"):
        assert word in found
    for word in ("--partition=gpu", "--account=lab", "--requeue", "--signal=B:USR1@120"):
        assert word in found
    assert "--exclusive" not in found
    assert not [word for word in found if word.startswith(("--qos", "--mem", "--array"))]


def test_without_gpus_and_cpus_a_job_takes_whole_nodes() -> None:
    assert "--exclusive" in list(SlurmRequest().directives())
    part = list(SlurmRequest(cpus_per_node=3).directives())
    assert "--cpus-per-task=3" in part
    assert "--exclusive" not in part


def test_an_array_is_so_many_jobs_of_one_node() -> None:
    found = list(SlurmRequest(array=3, more=("--constraint=a100",)).directives())
    assert {"--array=0-2", "--nodes=1", "--constraint=a100"} <= set(found)
    assert "--output=raygrid-%A_%a.log" in found


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"nodes": 0}, "nodes is 0, allowed are whole numbers from 1"),
        ({"gpus_per_node": -1}, "gpus_per_node is -1, allowed are whole numbers from 0"),
        ({"cpus_per_node": 0}, "cpus_per_node is 0"),
        ({"notice": 5}, "notice is 5, allowed are whole numbers from 30"),
        ({"array": 2, "nodes": 2}, "jobs of an array have one node each"),
        ({"time": "8h"}, "time is '8h', allowed are 8:00:00"),
        ({"memory": "64 GB"}, "memory is '64 GB', allowed are 64G"),
        ({"partition": "a b"}, "partition is 'a b', allowed is one word"),
        ({"name": "x\n#SBATCH --uid=0"}, "allowed is one word"),
        ({"more": ("constraint=a",)}, "does not begin with -"),
    ],
)
def test_what_slurm_would_not_take_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        SlurmRequest(**wrong)


def test_a_submission_without_a_command_or_cluster_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["submit", "slurm", "--print"]) == 2
    assert "there is no command; write it behind --" in capsys.readouterr().err
    assert main(["submit", "slrum", "--print", "--", "true"]) == 2
    assert "unknown cluster 'slrum' (did you mean 'slurm'?)" in capsys.readouterr().err


def test_without_sbatch_a_person_is_told_where_to_go(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["submit", "slurm", "--", "true"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "there is no `sbatch` here" in line
    assert "--print" in line


def test_words_of_slurm_are_one_line() -> None:
    said = "sbatch: error: invalid partition specified: gpux\nsbatch: error: Batch job failed\n"
    assert slurm_words(said) == "invalid partition specified: gpux; Batch job failed"
    assert slurm_words("\n") == "it does not say why"


def test_a_job_has_what_slurm_says_and_not_the_machine() -> None:
    share = Allocation.of(GIVEN)
    assert share == Allocation("4711", "n1", 2, 3, 1, 2000 * 2**20, None)
    assert share.object_store == int(0.3 * 2000 * 2**20)
    of_cpus = {**GIVEN, "SLURM_MEM_PER_NODE": "0", "SLURM_MEM_PER_CPU": "10"}
    assert Allocation.of(of_cpus).memory == 30 * 2**20
    assert Allocation.of(of_cpus).object_store == 80 * 2**20, "Ray takes no smaller one"
    free = {k: v for k, v in GIVEN.items() if "MEM" not in k and "GPUS" not in k}
    assert Allocation.of(free).object_store is None
    assert Allocation.of(free).gpus == 0
    assert Allocation.of({**free, "CUDA_VISIBLE_DEVICES": "0,3"}).gpus == 2
    task = {"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_MIN": "2", "SLURM_ARRAY_TASK_MAX": "6"}
    assert Allocation.of({**free, **task}).task == "3/5"


def test_ray_is_started_with_the_jobs_share_and_ports_of_its_own(tmp_path: Path) -> None:
    share = Allocation.of(GIVEN)
    head = RayNode(share).command(tmp_path)
    for word in ("--head", "--num-cpus=3", "--num-gpus=1", f"--temp-dir={tmp_path}", "--port=0"):
        assert word in head
    assert "--node-ip-address=127.0.0.1" not in head, "other nodes have to reach it"
    other = RayNode(share, "10.0.0.1:77").command(tmp_path)
    assert "--address=10.0.0.1:77" in other
    assert "--head" not in other
    for words in (head, other):
        fixed = [word for word in words if "port" in word and not word.endswith("=0")]
        assert [word.partition("=")[0] for word in fixed] in ([], ["--ray-client-server-port"])
    alone = Allocation.of({**GIVEN, "SLURM_JOB_NUM_NODES": "1"})
    assert "--node-ip-address=127.0.0.1" in RayNode(alone).command(tmp_path)


def test_outside_of_a_job_one_line_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    code = "import sys; from raygrid.engine.slurm.job import job_main; sys.exit(job_main())"
    env = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")}
    done = subprocess.run(
        [sys.executable, "-c", code, "--", "true"], env=env, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("raygrid: SLURM_JOB_ID is not set: this runs inside of a Slurm")
    assert job_main(["--notice", "60"]) == 2
    assert "there is no command" in capsys.readouterr().err


def test_a_jobs_folder_is_short_private_and_new(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A socket's path has 107 bytes; Slurm's own temporary folder may be longer than that."""
    long = tmp_path / ("x" * 60)
    long.mkdir()
    monkeypatch.setenv("SLURM_TMPDIR", str(long))
    monkeypatch.delenv("TMPDIR", raising=False)
    made = {private_folder("17"), private_folder("17")}
    try:
        assert len(made) == 2
        for folder in made:
            assert len(str(folder)) <= 40
            assert folder.stat().st_mode & 0o777 == 0o700
    finally:
        for folder in made:
            folder.rmdir()


def test_the_folders_that_nodes_share_are_those_of_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert folders_of(RUN, {}) == [tmp_path / "runs"]
    given = [*RUN, "--out=here", "--store", "s3://bucket/x"]
    assert folders_of(given, {}) == [tmp_path / "here"]
    there = {"RAYGRID_STORE": (tmp_path / "over there").as_uri()}
    assert "over%20there" in there["RAYGRID_STORE"]
    assert folders_of(RUN, there) == [tmp_path / "runs", tmp_path / "over there"]
    with pytest.raises(StoreError, match="allowed are a path, s3, gs and file"):
        folders_of(RUN, {"RAYGRID_STORE": "ftp://host/x"})


def test_a_folder_that_is_not_shared_is_found_out(tmp_path: Path) -> None:
    with probes_in([tmp_path / "out"]) as probes:
        assert fault_here(versions_here(), probes) is None
        missing = [tmp_path / "elsewhere" / probes[0].name]
        said = fault_here(versions_here(), missing, patience=0.1)
        assert said == (
            f"does not see {tmp_path / 'elsewhere'} of the first node; give folders of a file "
            "system that all nodes share"
        )
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ClusterError, match=f"cannot write to {file}"), probes_in([file]):
        pass


def test_another_ray_on_a_node_is_named() -> None:
    here = versions_here()
    assert here["ray"] == importlib.metadata.version("ray")
    said = fault_here({**here, "ray": "2.9.0"}, [])
    assert said == f"has ray {here['ray']}, the first node 2.9.0"
    assert fault_here({**here, "nothing": "1"}, []) == "has nothing not at all, the first node 1"


SAVES = """
import signal, sys, time
signal.signal(signal.SIGUSR1, lambda *_: sys.exit(75))
open(sys.argv[1], "w").close()
time.sleep(60)
"""
HEEDLESS = """
import signal, sys, time
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
open(sys.argv[1], "w").close()
time.sleep(60)
"""


DEAF = """
import sys, time
open(sys.argv[1], "w").close()
time.sleep(60)
"""
SHELL = SAVES.replace("75", "128 + signal.SIGUSR1")
ENDS = {"saves": SAVES, "heedless": HEEDLESS, "dies": DEAF, "dies in a shell": SHELL}


@pytest.mark.parametrize("code", ENDS.values(), ids=ENDS)
def test_a_command_that_is_told_of_the_end_saves_or_is_ended(code: str, tmp_path: Path) -> None:
    """All leave a job that is to be queued again; a command that ends by itself does not."""
    ready = tmp_path / "ready"
    command = Command([sys.executable, "-c", code, str(ready)], notice=2.0)
    before = signal.signal(signal.SIGUSR1, command.tell)
    teller = "import os, sys, time\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.05)\n"
    teller += f"os.kill({os.getpid()}, 10)"
    started = time.monotonic()
    try:
        with subprocess.Popen([sys.executable, "-c", teller, str(ready)]):
            assert command.run(dict(os.environ)) == notice.SAVED_EXIT_STATUS
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert time.monotonic() - started < 30


def test_a_commands_own_end_is_the_jobs() -> None:
    for status in (0, 3):
        code = f"import sys; sys.exit({status})"
        assert Command([sys.executable, "-c", code], 60).run(dict(os.environ)) == status
    with pytest.raises(SpecError, match="no-such-program cannot be run"):
        Command(["no-such-program"], 60).run({})


def test_the_guide_shows_the_line_that_made_the_shipped_script() -> None:
    guide = (ROOT / "docs" / "clusters.md").read_text()
    (line,) = [line for line in SHIPPED.read_text().splitlines() if "raygrid submit" in line]
    assert line.removeprefix("#").strip() in guide


def test_options_that_the_guide_names_are_those_of_the_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    guide = (ROOT / "docs" / "clusters.md").read_text().partition("## Slurm")[2]
    with pytest.raises(SystemExit):
        main(["submit", "--help"])
    shown = capsys.readouterr().out
    for word in ("--nodes", "--array", "--partition", "--account", "--qos", "--memory", "--notice"):
        assert f"`{word}" in guide
        assert word in shown


def test_a_command_of_several_lines_stays_a_comment_in_the_script() -> None:
    """Its second line stood before the directives, which Slurm then ignored."""
    request = SlurmRequest()
    line = ["raygrid", "submit", "slurm", "--", "bash", "-c", "echo a\necho b"]
    script = batch_script(request, line[4:], line)
    head = script[: script.index("#SBATCH")].splitlines()
    assert all(each.startswith("#") for each in head)
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


def test_a_notice_that_comes_while_the_command_is_started_reaches_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was passed on to nobody, and the command worked on until it was ended unsaved."""
    command = Command([sys.executable, "-c", "import time; time.sleep(20)"], notice=60.0)
    start = subprocess.Popen

    def told_meanwhile(*words: Any, **options: Any) -> Any:
        command.tell(signal.SIGUSR1, None)
        return start(*words, **options)

    monkeypatch.setattr(subprocess, "Popen", told_meanwhile)
    began = time.monotonic()
    assert command.run(dict(os.environ)) == notice.SAVED_EXIT_STATUS
    assert time.monotonic() - began < 15
