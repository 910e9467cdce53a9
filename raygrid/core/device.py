"""The device of a process: its name, what a job takes of it, and the bound that a job is given."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import platform
import statistics
import warnings
from typing import Any

from raygrid.core.errors import DeviceError
from raygrid.core.lazy import torch
from raygrid.core.local_gpus import LocalGpu, name_of
from raygrid.core.memory import PeakMemory

CONTEXT_MB = 600.0
"""What a process takes on a GPU beside torch's own pool: context, cuBLAS and cuDNN workspaces."""


TF32 = False
"""Whether float32 products may drop 13 bits of their factors; torch's own default does in cuDNN."""
DETERMINISTIC = True
"""Whether sums on a GPU keep their order where CUDA has a way."""


class Meter:
    """What a job takes of its device, from here on. share: the part of a GPU that it was given.

    One at a time in a process: what it counts begins anew with the next one.
    """

    def __init__(self, device: torch.device, share: float = 1.0) -> None:
        self.device = device
        self.share = share if device.type == "cuda" else 0.0
        self._samples: list[float] = []
        self._resident = PeakMemory()
        if device.type == "cuda" and torch.cuda.is_initialized():
            torch.cuda.reset_peak_memory_stats(device)

    def sample(self) -> None:
        """Look how busy the GPU was in the last moments, as at the end of an epoch's training."""
        self._resident.measure()
        seen = utilization(self.device)
        if seen is not None:
            self._samples.append(seen)

    @property
    def memory_mb(self) -> float:
        """The highest so far: on a GPU of torch's pool there, else as `PeakMemory` counts it."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_reserved(self.device) / 2**20
        return self._resident.measure()

    def facts(self) -> dict[str, Any]:
        """The fields of a result: memory_mb, utilization, gpu_share."""
        return {
            "memory_mb": self.memory_mb,
            "utilization": statistics.median(self._samples) if self._samples else None,
            "gpu_share": self.share,
        }


def settle(device: torch.device) -> None:
    """Decide by name what CUDA leaves open, so that the same card gives the same bytes again.

    float32 is float32 (`TF32`), and of several algorithms the deterministic one runs
    (`DETERMINISTIC`). Few operations have none: the backward passes of `grid_sample` and of
    bicubic and adaptive pooling resizes. These run all the same. Nothing changes on a CPU.
    """
    if device.type != "cuda":
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    torch.backends.cuda.matmul.allow_tf32 = TF32
    torch.backends.cudnn.allow_tf32 = TF32
    torch.backends.cudnn.benchmark = False  # it picks algorithms by the clock
    torch.use_deterministic_algorithms(DETERMINISTIC, warn_only=True)
    # Where a lack of a way is only warned of, the fused kernels of attention keep adding up
    # gradients in any order; plain products and a softmax do not.
    for fused in ("flash", "mem_efficient", "cudnn"):
        getattr(torch.backends.cuda, f"enable_{fused}_sdp")(not DETERMINISTIC)
    warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation")
    # else a kernel for every new tensor
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def utilization(device: torch.device) -> float | None:
    """The part of the last second or less in which a GPU computed, for any process, 0 to 1.

    None on a CPU and where nobody counts: without the package nvidia-ml-py, on a slice of a card.
    """
    if device.type != "cuda":
        return None
    try:
        return torch.cuda.utilization(device) / 100
    except Exception:  # NVML has errors of its own; to know less must not end a trial
        return None


def limit_memory(device: torch.device, share: float) -> None:
    """Have torch's pool of this process end where its share of the GPU ends, less the context.

    A job that wants more runs out of memory itself, and no neighbor does. The bound lasts as long
    as the process: set it for every job.
    """
    if device.type != "cuda":
        return
    total = torch.cuda.get_device_properties(device).total_memory / 2**20
    part = share - CONTEXT_MB / total if share < 1 else 1.0
    torch.cuda.set_per_process_memory_fraction(max(part, 0.01), device)


def memory_limit(device: torch.device) -> float | None:
    """Bytes of a GPU that this process may take, see `limit_memory`; None on a CPU."""
    if device.type != "cuda":
        return None
    total = torch.cuda.get_device_properties(device).total_memory
    return float(total * torch.cuda.get_per_process_memory_fraction(device))


def check_room(device: torch.device, share: float) -> None:
    """Raises DeviceError where others hold what this process's share of a GPU should be.

    Neighbors keep to their shares, so a card with too little left is held by somebody else.
    """
    if device.type != "cuda" or share <= 0:
        return
    free, total = (size / 2**30 for size in torch.cuda.mem_get_info(device))
    said = LocalGpu(name_of(device.index), device_name(device), total, free).held(share)
    if said is not None:
        raise DeviceError(said)


def device_name(device: torch.device) -> str:
    """What a person would call the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu ({platform.machine()}, {torch.get_num_threads()} thread)"


def _trim() -> None:
    """Have glibc give freed memory back to the system; other C libraries do so by themselves.

    It keeps what was freed on any thread but the first, and every trial of Ray has a thread of its
    own: 0.6 of 1.4 GB after two trials on CIFAR-10.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def release(device: torch.device) -> None:
    """Leave nothing of a job behind in a process that runs the next one.

    A device that is lost refuses even that.
    """
    gc.collect()
    _trim()
    if device.type == "cuda" and torch.cuda.is_initialized():  # else there is nothing, and no stats
        with contextlib.suppress(RuntimeError):
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
