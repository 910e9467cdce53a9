"""What an error of an accelerator means: too little memory, or a device that is lost.

CUDA says the first in many ways, by class or by text alone, and nothing is broken: the job may try
again with more. Every other error of CUDA is reported late and leaves the process without a usable
context, so nothing that runs there afterwards can be trusted.
"""

from __future__ import annotations

import re
from typing import Literal

from raygrid.core.lazy import torch

Trouble = Literal["memory", "lost"]

OUT_OF_MEMORY = "out of memory"
"""The words by which a driver knows a worker's lack of memory."""

_MEMORY = re.compile(
    r"CUDA out of memory|CUDA(?: driver)? error: out of memory|cudaErrorMemoryAllocation"
    r"|CUDA_ERROR_OUT_OF_MEMORY|CU\w+_ALLOC_FAILED|ALLOCATION_FAILED"
    # No room for a library's own handle; none for the workspace of any of cuDNN's algorithms.
    r"|CU(?:BLAS|DNN|SOLVER)_STATUS_NOT_INITIALIZED"
    r"|[Uu]nable to find (?:an engine to execute|a valid cuDNN algorithm)"
    # torch's allocator ran out and could not ask NVML by whom: a slice of a card, an old driver.
    r"|NVML_SUCCESS == .*INTERNAL ASSERT FAILED"
)
_LOST = re.compile(r"CUDA(?: driver)? error|CU(?:BLAS|DNN|FFT|RAND|SOLVER|SPARSE)_\w+|cuDNN error")


def trouble(error: BaseException | None) -> Trouble | None:
    """What an error, or the one that it was raised from, says of the device; None for nothing."""
    while error is not None:
        if found := _of(error):
            return found
        error = error.__cause__
    return None


def _of(error: BaseException) -> Trouble | None:
    if isinstance(error, torch.OutOfMemoryError):
        return "memory"
    if not isinstance(error, RuntimeError):
        return None
    text = str(error)
    if _MEMORY.search(text):
        return "memory"
    kind = getattr(torch, "AcceleratorError", torch.OutOfMemoryError)  # of torch 2.8 and newer
    if isinstance(error, kind) or _LOST.search(text):
        return "lost"
    return None
