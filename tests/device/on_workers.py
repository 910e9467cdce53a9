"""Has processes that import it compute on the pretend device: Ray's workers, scripts."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from raygrid.engine import worker
from raygrid.nn import graphs
from tests.device import pretend
from tests.device.pretend.tape import PretendRecorder
from tests.plugin import CARD

assert CARD  # the toys are registered here as well
NOTES = "PRETEND_NOTES"
"""The variable that names a folder; a file there tells of each process that computes so."""


def device() -> torch.device:
    """Instead of `best_device`, which looks for CUDA."""
    (Path(os.environ[NOTES]) / str(os.getpid())).touch()
    return pretend.DEVICE


if NOTES in os.environ:
    pretend.setup()
    torch.tensor, torch.as_tensor = pretend.tensor, pretend.as_tensor
    worker.best_device = device
    graphs.RECORDERS[pretend.DEVICE.type] = PretendRecorder
