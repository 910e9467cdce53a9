"""What every figure has to name: the command, the commit, the versions, the machine."""

from __future__ import annotations

import os
import platform
import shlex
import sys

import torch

from raygrid.engine.worker import commit


def header() -> str:
    """Four short lines for the top of a benchmark's output."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return "\n".join(
        [
            f"command: {shlex.join(['python', *sys.argv])}",
            f"commit:  {commit()}",
            f"torch {torch.__version__}, Python {platform.python_version()}",
            f"machine: {platform.machine()}, {os.cpu_count()} cores, {device}",
        ]
    )
