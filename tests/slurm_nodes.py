"""A real Slurm of two nodes on this machine, in a folder of its own: started and ended by hand."""

from __future__ import annotations

import getpass
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.ports import free_ports

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "squeue")
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
FirstJobId={first}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
KillWait=20
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
SlurmdParameters=config_overrides
EnforcePartLimits=ALL
GresTypes=gpu
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4 RealMemory=6000 Gres=gpu:2
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4 RealMemory=6000 Gres=gpu:2
PartitionName=debug Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=n1,n2 MaxTime=INFINITE State=UP PriorityTier=9
PartitionName=closed Nodes=n1,n2 MaxTime=1 State=UP AllowAccounts=nobody
"""
GPUS = "NodeName=n[1-2] Name=gpu File=/dev/null\nNodeName=n[1-2] Name=gpu File=/dev/zero\n"


def missing() -> str:
    """Why there can be no Slurm here; empty if there can."""
    gone = [name for name in PROGRAMS if shutil.which(name) is None]
    if gone:
        return f"no {', '.join(gone)}: Debian has them in slurm-wlm and munge"
    return "" if os.getuid() == 0 else "slurmd runs jobs as root alone"


class SlurmNodes:
    """A controller and two nodes of four CPUs and two (pretended) GPUs each.

    Jobs of the partition `urgent` take the place of those of `debug`, a minute after telling them;
    `closed` takes nobody's jobs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self.env = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

    @property
    def local(self) -> Path:
        """A folder of the first node; the second node sees an empty one there."""
        return self.folder / "local"

    def on_second(self, *command: str) -> None:
        """Run a command that sees the files of the second node."""
        inside = ["nsenter", "--mount", "--target", str(self.processes[-1].pid), *command]
        subprocess.run(inside, check=True)

    def start(self) -> None:
        """Start all four programs and wait until both nodes are idle."""
        (self.folder / "state").mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        host = socket.gethostname().partition(".")[0]
        facts = {"host": host, "user": getpass.getuser(), "folder": self.folder}
        facts["first"] = random.randrange(1000, 60000)  # folders on the machine are named by jobs
        text = CONFIGURATION.format(ports=free_ports(3), **facts)
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "gres.conf").write_text(GPUS)
        words = {"socket": "socket", "key-file": "key", "pid-file": "pid"}
        words |= {"log-file": "log", "seed-file": "seed"}
        places = [f"--{word}={self.folder}/munge.{name}" for word, name in words.items()]
        self._run("munged", "--foreground", "--force", *places)
        self._wait(lambda: (self.folder / "munge.socket").exists(), 10)
        self._run("slurmctld", "-D")
        self._run("slurmd", "-D", "-N", "n1")
        # The second node has a folder of its own in the place of the first one's.
        self.local.mkdir()
        own = 'mount -t tmpfs own "$0" && exec slurmd -D -N n2'
        self._run("unshare", "--mount", "bash", "-c", own, str(self.local))
        self._wait(lambda: self.ask("sinfo", "-h", "-o", "%D %T").split() == ["2", "idle"], 60)

    def _run(self, *command: str) -> None:
        with (self.folder / f"{command[0]}.out").open("ab") as out:
            quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": out}
            self.processes.append(
                subprocess.Popen(command, env=self.env, start_new_session=True, **quiet)
            )

    def _wait(self, done: Any, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, self.words()
            time.sleep(0.2)

    def words(self) -> str:
        """The last that the programs said."""
        files = sorted(self.folder.glob("*.out")) + sorted(self.folder.glob("*.log"))
        return "\n".join(f"{file.name}: {file.read_text()[-1500:]}" for file in files)

    def ask(self, *command: str) -> str:
        """The answer of a command of Slurm, empty while it has none."""
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    def tell(self, *command: str) -> None:
        """A command of Slurm that has to succeed."""
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def state(self, job: str) -> str:
        """The state of a job in one word, as `scontrol` gives it."""
        said = self.ask("scontrol", "show", "job", job, "--oneliner")
        return said.partition("JobState=")[2].partition(" ")[0]

    def free(self) -> None:
        """Take back all jobs and wait until both nodes are idle again."""
        self.tell("scancel", "--user", getpass.getuser())
        self.ask("scontrol", "update", "NodeName=n1,n2", "State=RESUME")
        self._wait(lambda: not self.ask("squeue", "-h"), 90)

    def stop(self) -> None:
        """End all four programs."""
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
