"""The NVIDIA GPUs of this machine, as its driver tells of them; torch is not asked."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from dataclasses import dataclass

NVIDIA_SMI = "nvidia-smi"
GPU_QUERY = "--query-gpu=index,name,memory.total,memory.free"
QUERY_SECONDS = 10.0  # seconds; a driver in trouble does not answer at all
FREE_SHARE = 0.5
"""Of its share of a GPU a job must find so much free; a display or a fresh context takes less."""
NO_UTILIZATION = (
    "how busy the GPUs are will not be known: the driver's NVML does not tell it "
    "(it needs raygrid[gpu], and tells nothing of a slice of a GPU); trials run all the same"
)


@dataclass(frozen=True)
class LocalGpu:
    """A GPU with its memory and what of that is free, in GiB.

    index: its number in the machine, or its UUID where CUDA_VISIBLE_DEVICES names it by that.
    """

    index: int | str
    name: str
    total: float
    free: float

    def held(self, share: float) -> str | None:
        """What to say if others hold what a job's share of the GPU should be; None if not."""
        if self.free >= FREE_SHARE * share * self.total:
            return None
        return (
            f"GPU {self.index} ({self.name}) has {self.free:.1f} of {self.total:.1f} GiB free, "
            f"this job's share is {share * self.total:.1f} GiB: another process holds the GPU; "
            "end it or hide the GPU with CUDA_VISIBLE_DEVICES"
        )


def name_of(index: int) -> str:
    """What the machine calls the GPU that this process sees under a number: a number or UUID."""
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return (seen[index].strip() if index < len(seen) else "") or str(index)


def local_gpus() -> list[LocalGpu]:
    """The GPUs that this process may see; none where the driver does not answer."""
    if shutil.which(NVIDIA_SMI) is None:
        return []
    words = [NVIDIA_SMI, GPU_QUERY, "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=QUERY_SECONDS, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    found = [card for line in done.splitlines() if (card := _parsed(line)) is not None]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return found
    names = {name.strip() for name in visible.split(",")}
    # Cards may also be named by their UUID, as may slices of them: these are told by the run.
    return [card for card in found if str(card.index) in names]


def _parsed(line: str) -> LocalGpu | None:
    """A line of the driver's table; None for a GPU whose memory it does not tell."""
    try:
        index, name, total, free = (word.strip() for word in line.split(","))
        return LocalGpu(int(index), name, float(total) / 1024, float(free) / 1024)
    except ValueError:
        return None


def counted() -> bool:
    """Whether the package is there through which torch asks how busy a GPU is."""
    return importlib.util.find_spec("pynvml") is not None
