"""Ray on one node of a Slurm job: started apart from every other Ray there, ended without a trace.

Two jobs, of one user or of two, may share a machine. Each Ray has a folder of its own, ports that
the system hands out, and the token of its job; nobody finds it by looking around.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from raygrid.core.errors import ClusterError
from raygrid.engine.ports import free_port
from raygrid.engine.ray import mps
from raygrid.engine.slurm.allocation import Allocation, private_folder
from raygrid.engine.slurm.processes import end_descendants

RAY_START_SECONDS = 180.0
"""Seconds that Ray may take to start; by itself it gives up sooner and says why."""
STOP_SECONDS = 8.0
"""Seconds that processes have to end by themselves: Slurm kills what is left after 30."""
SWITCHED_OFF = ("--disable-usage-stats", "--no-monitor", "--include-log-monitor=false")
"""Parts of Ray that a job has no use for: no node is added later, workers' logs are its own."""
JOB_RAY_ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
}


class RayNode:
    """Ray's processes of a job on this node. address: of the head; None: this is the head.

    After `start`, `address` is that of the head.
    """

    def __init__(self, allocation: Allocation, address: str | None = None) -> None:
        self.allocation = allocation
        self.head = address
        self.address = address or ""
        self.folder: Path | None = None
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, seconds: float = RAY_START_SECONDS) -> None:
        """Start Ray, once more if it does not come up; raises ClusterError after that."""
        try:
            self._start(seconds)
        except ClusterError as error:
            print(f"raygrid: {error}; trying once more", file=sys.stderr, flush=True)
            self.stop()
            self._start(seconds)

    def _start(self, seconds: float) -> None:
        self.folder = private_folder(self.allocation.job)
        ray = self.folder / "ray"  # Ray opens its folder to everybody; this one stays closed
        ray.mkdir()
        log = self.folder / "start.log"
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                self.command(ray),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, **JOB_RAY_ENVIRONMENT},
            )
        # Ray writes the head's address into its folder once its node is there.
        said, end = ray / "ray_current_cluster", time.monotonic() + seconds
        while not said.exists() or not said.read_text(encoding="utf-8"):
            late = time.monotonic() > end
            if late or self.process.poll() is not None:
                why = f"in {seconds:.0f} s" if late else f"({_last_line(log)})"
                raise ClusterError(f"Ray does not start on node {self.allocation.node} {why}")
            time.sleep(0.1)
        self.address = said.read_text(encoding="utf-8")

    def command(self, folder: Path) -> list[str]:
        """What starts Ray, with what the job holds of this node and no more."""
        allocation = self.allocation
        words = {
            "--temp-dir": folder,
            "--num-cpus": allocation.cpus,
            "--num-gpus": allocation.gpus,
            "--object-store-memory": allocation.object_store,
            "--dashboard-agent-listen-port": 0,
            "--min-worker-port": 0,  # any free one; by itself Ray counts up from 10002
            "--max-worker-port": 0,
        }
        if self.head:
            words["--address"] = self.head
        else:
            words |= {"--port": 0, "--ray-client-server-port": free_port()}
            words |= {"--include-dashboard": "false"}
            if allocation.nodes == 1:  # nobody on another machine has to reach it
                words["--node-ip-address"] = "127.0.0.1"
        told = [f"{name}={value}" for name, value in words.items() if value is not None]
        first = [] if self.head else ["--head"]
        ray = [sys.executable, "-m", "raygrid.engine.ray.start", "start", "--block"]
        return [*ray, *SWITCHED_OFF, *first, *told]

    @property
    def running(self) -> bool:
        """Whether Ray has been started and has not ended."""
        return self.process is not None and self.process.poll() is None

    def stop(self) -> None:
        """End Ray and all that this process has started beside it, and remove their folders.

        Every other Ray of the machine stays.
        """
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_SECONDS)
            end_descendants()
            self.process.wait()
            self.process = None
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            shutil.rmtree(mps.home({"SLURM_JOB_ID": self.allocation.job}), ignore_errors=True)
            self.folder = None


def _last_line(log: Path) -> str:
    lines = [
        line.strip()
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines()
        if line.strip()
    ]
    return lines[-1] if lines else "it says nothing"
