"""What a Slurm job was given, read from the variables that Slurm sets on each of its nodes.

A job may hold a part of a machine. Nothing here asks the machine what it has.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from raygrid.core.errors import ClusterError
from raygrid.engine.ray import sockets

OBJECT_STORE_SHARE = 0.3
"""The part of its memory that a node's object store may have, as Ray has it of a whole machine."""
LEAST_STORE_BYTES = 80 * 2**20
"""Bytes below which Ray takes no object store."""
JOB_FOLDER_BYTES = sockets.SOCKET_FOLDER_BYTES - 2
"""Bytes of a folder for Ray's sockets; `rg` and the job's number follow."""


@dataclass(frozen=True)
class Allocation:
    """The share of one node that a job holds.

    job: the number that names the job to Slurm; that of an array's job is its own. node: its name
    in Slurm. nodes: how many the job has. cpus, gpus: of this node. memory: of this node in bytes,
    None if Slurm does not limit it. task: which job of an array this is and of how many, as in
    `0/4`; None outside of one.
    """

    job: str
    node: str
    nodes: int
    cpus: int
    gpus: int
    memory: int | None
    task: str | None

    @classmethod
    def of(cls, env: Mapping[str, str]) -> Allocation:
        """Read the variables; raises ClusterError outside of a Slurm job."""
        try:
            job, node = env["SLURM_JOB_ID"], env["SLURMD_NODENAME"]
            nodes, cpus = int(env["SLURM_JOB_NUM_NODES"]), int(env["SLURM_CPUS_ON_NODE"])
        except KeyError as error:
            raise ClusterError(
                f"{error.args[0]} is not set: this runs inside of a Slurm job; submit it with "
                "`raygrid submit slurm` or `sbatch`"
            ) from None
        return cls(job, node, nodes, cpus, _gpus(env), _memory(env, cpus), _task(env))

    @property
    def object_store(self) -> int | None:
        """Bytes of Ray's object store, None where Ray may ask the machine."""
        if self.memory is None:
            return None
        return max(LEAST_STORE_BYTES, int(OBJECT_STORE_SHARE * self.memory))


def _task(env: Mapping[str, str]) -> str | None:
    """Arrays may begin anywhere; here the first is 0."""
    if "SLURM_ARRAY_TASK_ID" not in env:
        return None
    first, last = int(env["SLURM_ARRAY_TASK_MIN"]), int(env["SLURM_ARRAY_TASK_MAX"])
    return f"{int(env['SLURM_ARRAY_TASK_ID']) - first}/{last - first + 1}"


def _gpus(env: Mapping[str, str]) -> int:
    if "SLURM_GPUS_ON_NODE" in env:
        return int(env["SLURM_GPUS_ON_NODE"])
    visible = env.get("CUDA_VISIBLE_DEVICES", "")  # older Slurm counts them nowhere else
    return 0 if visible == "NoDevFiles" else len([name for name in visible.split(",") if name])


def _memory(env: Mapping[str, str], cpus: int) -> int | None:
    """Bytes; Slurm gives megabytes, 0 for all that there is."""
    whole = int(env.get("SLURM_MEM_PER_NODE", 0))
    return (whole or int(env.get("SLURM_MEM_PER_CPU", 0)) * cpus) * 2**20 or None


def private_folder(job: str) -> Path:
    """A new folder on this machine that only this user may enter, short enough for sockets."""
    wanted = (os.environ.get("SLURM_TMPDIR"), os.environ.get("TMPDIR"), "/tmp")
    for base in filter(None, wanted):
        if len(base) <= JOB_FOLDER_BYTES - len(job) and os.access(base, os.W_OK | os.X_OK):
            return Path(tempfile.mkdtemp(prefix=f"rg{job}-", dir=base))
    raise ClusterError(f"no folder can be made in {' or '.join(filter(None, wanted))}")
