"""NVIDIA's Multi-Process Service: trials that share a GPU compute side by side, not in turns.

One control daemon serves a node's user; the worker that comes first starts it, and CUDA finds it by
a folder in the environment. It stays when a run ends. To end it:

    echo quit | CUDA_MPS_PIPE_DIRECTORY=/tmp/raygrid-mps-$UID nvidia-cuda-mps-control

A job of Slurm has a daemon of its own, which sees the job's cards and ends with it.

Shares of the threads are not limited (CUDA_MPS_ACTIVE_THREAD_PERCENTAGE): a trial may use what its
neighbors leave. https://docs.nvidia.com/deploy/mps/
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from filelock import FileLock, Timeout

from raygrid.engine.ray.sockets import own_folder

log = logging.getLogger(__name__)
MPS_CONTROL = "nvidia-cuda-mps-control"
PIPES_VARIABLE, LOGS_VARIABLE = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"
DEVICES_VARIABLE = "CUDA_VISIBLE_DEVICES"
DAEMON_SECONDS = 20.0  # seconds for a daemon to start, or for another worker to start it


def use_mps(share: float, env: MutableMapping[str, str] | None = None) -> bool:
    """Have CUDA of this process use MPS if it has a part of a GPU; whether it does.

    Call it before CUDA is asked anything. A daemon that the environment already names is left to
    whoever started it. Slices of a card (MIG) are shared by the hardware.
    """
    env = os.environ if env is None else env
    if not 0 < share < 1 or env.get(DEVICES_VARIABLE, "").startswith("MIG"):
        return False
    if PIPES_VARIABLE in env:
        return True
    if shutil.which(MPS_CONTROL, path=env.get("PATH")) is None:
        return False
    try:
        folder = own_folder(home(env))
        with FileLock(folder / "lock", timeout=DAEMON_SECONDS):
            found = answers(folder, env) or start_daemon(folder, env)
    except (OSError, Timeout, subprocess.SubprocessError) as error:
        log.warning("no MPS, trials take turns on the GPU: %s", error)
        return False
    if found:
        env[PIPES_VARIABLE] = str(folder)
    return found


def home(env: Mapping[str, str]) -> Path:
    """Where the folder of this user's daemon is, or of the daemon of this job of Slurm."""
    names = ["raygrid-mps", str(os.getuid()), env.get("SLURM_JOB_ID", "")]
    return Path(tempfile.gettempdir()) / "-".join(filter(None, names))


def answers(folder: Path, env: Mapping[str, str]) -> bool:
    """Whether a daemon of this folder lives."""
    return _control(folder, env, asks="get_server_list\n").returncode == 0


def start_daemon(folder: Path, env: Mapping[str, str]) -> bool:
    """Start a daemon that serves all GPUs of the node, and ask whether it lives."""
    started = _control(folder, env, "-d")
    if started.returncode != 0:
        log.warning("no MPS, trials take turns on the GPU: %s", started.stderr.strip())
    return started.returncode == 0 and answers(folder, env)


def _control(
    folder: Path, env: Mapping[str, str], *words: str, asks: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the control program; a daemon must not inherit the one GPU that this worker sees."""
    seen = {name: value for name, value in env.items() if name != DEVICES_VARIABLE}
    return subprocess.run(
        [MPS_CONTROL, *words],
        input=asks,
        env={**seen, PIPES_VARIABLE: str(folder), LOGS_VARIABLE: str(folder)},
        capture_output=True,
        text=True,
        timeout=DAEMON_SECONDS,
        check=False,
    )
