"""Handing a batch script to Slurm, and what Slurm says of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from raygrid.core.errors import ClusterError


def submit_script(script: str, folder: Path) -> str:
    """Submit a batch script that runs in a folder; the number of the job.

    Raises ClusterError where Slurm is not installed, and with Slurm's own words, on one line, where
    it refuses the job.
    """
    if shutil.which("sbatch") is None:
        raise ClusterError(
            "there is no `sbatch` here: run this on a login node of a Slurm cluster, or use "
            "--print to see the script"
        )
    # The job finds the same Python by its name, whether or not its environment is activated here.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    done = subprocess.run(
        ["sbatch", "--parsable"],
        input=script,
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ClusterError(f"Slurm refuses the job: {slurm_words(done.stderr)}")
    return done.stdout.strip().partition(";")[0]


def slurm_words(text: str) -> str:
    """What a command of Slurm complained of, on one line and without its own name."""
    lines = (line.strip().removeprefix("sbatch: ") for line in text.splitlines())
    return (
        "; ".join(line.removeprefix("error: ") for line in lines if line) or "it does not say why"
    )
