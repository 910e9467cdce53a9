"""The other nodes of a job, as its first node sees them: one `srun` that starts Ray on each."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from raygrid.core.errors import ClusterError
from raygrid.engine.slurm.allocation import Allocation
from raygrid.engine.slurm.node import RAY_START_SECONDS, STOP_SECONDS
from raygrid.engine.slurm.worker import NODE_MARK

SRUN = (
    *("srun", "--ntasks-per-node=1", "--mem=0", "--cpu-bind=none"),
    *("--kill-on-bad-exit=0", "--wait=0", "--unbuffered"),
)
"""All that the job has of each node, and one node's end is not that of the others."""


class OtherNodes:
    """All nodes of a job but the first, which `address`, `versions` and `probes` are of."""

    def __init__(
        self,
        allocation: Allocation,
        address: str,
        versions: Mapping[str, str],
        probes: Sequence[Path],
    ) -> None:
        self.allocation, self.address = allocation, address
        self.versions, self.probes = versions, probes
        self.up: set[str] = set()
        self.faults: list[str] = []
        self.step: subprocess.Popen[str] | None = None

    @property
    def wanted(self) -> int:
        """How many there are."""
        return self.allocation.nodes - 1

    def start(self, seconds: float = 2 * RAY_START_SECONDS + 30) -> None:
        """Start Ray on all of them and wait for it; raises ClusterError that says what is wrong.

        Nodes that say nothing in time are done without, with a line that counts them.
        """
        if not self.wanted:
            return
        self.step = subprocess.Popen(
            self.command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        reader = threading.Thread(target=self._read, args=(self.step,), daemon=True)
        reader.start()
        end = time.monotonic() + seconds
        while len(self.up) < self.wanted:
            if self.faults:
                raise ClusterError("; ".join(self.faults))
            if self.step.poll() is not None:
                reader.join(5)
                raise ClusterError("; ".join(self.faults) or "srun ended before Ray was up")
            if time.monotonic() > end:
                print(
                    f"raygrid: {self.wanted - len(self.up)} of {self.wanted + 1} nodes are not up "
                    "yet; starting without them",
                    file=sys.stderr,
                )
                return
            time.sleep(0.1)

    def command(self) -> list[str]:
        """The step of the job that serves on its other nodes."""
        words = [*SRUN, f"--nodes={self.wanted}", f"--ntasks={self.wanted}"]
        words += [f"--exclude={self.allocation.node}", sys.executable]
        words += ["-m", "raygrid.engine.slurm.worker", f"--address={self.address}"]
        words += [f"--versions={json.dumps(dict(self.versions))}"]
        return words + [f"--probe={probe}" for probe in self.probes]

    def _read(self, step: subprocess.Popen[str]) -> None:
        """Take in what the nodes say; anything else they print goes to the job's log."""
        assert step.stdout is not None
        for line in step.stdout:
            if not line.startswith(NODE_MARK):
                print(line, end="", flush=True)
                continue
            facts = json.loads(line.removeprefix(NODE_MARK))
            if facts["state"] == "up":
                self.up.add(facts["node"])
            else:
                self.faults.append(f"node {facts['node']} {facts['why']}")

    def stop(self) -> None:
        """End Ray on all of them, and wait until its folders are gone."""
        if self.step is None:
            return
        # The end of their input tells them; a signal to srun would kill them as they are.
        assert self.step.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.step.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.step.wait(STOP_SECONDS + 6)
        self.step.kill()
        self.step.wait()
