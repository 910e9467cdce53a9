"""A machine with NVIDIA cards as torch's Python code sees it: only its calls into C are replaced.

torch checks its arguments in Python before it calls the driver, so what a real card would refuse
there is refused here. Nothing can compute.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

GIB = 2**30


@dataclass
class Machine:
    """The cards of a machine, and what torch asked of them by visible index.

    nvml: whether the driver counts (`busy`, percent of time, by the card's number in the machine).
    """

    names: tuple[str, ...] = ("NVIDIA A10G",)
    memory: int = 22 * GIB
    free: int = 22 * GIB
    reserved: int = 3 * GIB
    nvml: bool = True
    busy: dict[int, list[int]] = field(default_factory=dict)
    visible: tuple[int, ...] = (0,)
    fractions: dict[int, float] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    debug: int = 0  # whether waiting for the device is warned of (1) or refused (2)
    broken: str = ""  # what every call of the driver raises
    initialized: bool = True  # whether this process has used a card before

    def call(self, name: str) -> None:
        self.calls.append(name)
        if self.broken:
            raise torch.AcceleratorError(self.broken)

    def properties(self, index: int) -> Any:
        self.call("properties")
        card = self.names[self.visible[index]]
        return SimpleNamespace(name=card, total_memory=self.memory, major=8, minor=6)

    def limit(self, fraction: float, index: int) -> None:
        self.call("limit")
        self.fractions[index] = fraction

    def stats(self, index: int) -> dict[str, Any]:
        self.call("stats")
        return {"reserved_bytes": {"all": {"peak": self.reserved}}}

    def watch(self, mode: int) -> None:
        """Whether waiting is warned of; the first time torch says how far that goes."""
        if mode and not self.debug:
            text = "Synchronization debug mode is a prototype feature and does not yet detect all"
            warnings.warn(text, stacklevel=2)
        self.debug = mode

    def emptied(self) -> None:
        self.call("empty")

    def reset(self, index: int) -> None:
        assert 0 <= index < len(self.visible)
        if not torch.cuda.is_initialized():
            raise RuntimeError(f"Invalid device argument {index}: did you call init?")
        self.call("reset")

    def information(self, index: int) -> tuple[int, int]:
        self.call("information")
        return self.free, self.memory

    def library(self) -> ModuleType:
        """NVML as its package offers it."""
        module: Any = ModuleType("pynvml")
        module.NVMLError_DriverNotLoaded = type("NVMLError_DriverNotLoaded", (Exception,), {})
        module.nvmlInit = lambda: None
        module.nvmlDeviceGetHandleByIndex = lambda index: index
        module.nvmlDeviceGetUtilizationRates = lambda index: SimpleNamespace(
            gpu=self.busy[index].pop(0)
        )
        return module  # type: ignore[no-any-return]


@contextlib.contextmanager
def machine(cards: Machine) -> Iterator[Machine]:
    """torch finds these cards while the block lasts."""
    with pytest.MonkeyPatch.context() as patch:
        calls = {
            "_cuda_getDeviceCount": lambda: len(cards.visible),
            "_cuda_getDevice": lambda: 0,
            "_cuda_setMemoryFraction": cards.limit,
            "_cuda_getMemoryFraction": lambda index: cards.fractions.get(index, 1.0),
            "_cuda_memoryStats": cards.stats,
            "_cuda_get_sync_debug_mode": lambda: cards.debug,
            "_cuda_set_sync_debug_mode": cards.watch,
            "_cuda_emptyCache": cards.emptied,
            "_cuda_resetPeakMemoryStats": cards.reset,
        }
        for name, stand_in in calls.items():
            patch.setattr(torch._C, name, stand_in, raising=False)
        patch.setattr(torch.cuda, "_initialized", cards.initialized)
        patch.setattr(torch.cuda, "_cached_device_count", None)
        patch.setattr(torch.cuda, "_get_device_properties", cards.properties, raising=False)
        runtime = SimpleNamespace(cudaMemGetInfo=cards.information)
        patch.setattr(torch.cuda, "cudart", lambda: runtime)
        patch.setenv("CUDA_VISIBLE_DEVICES", ",".join(map(str, cards.visible)))
        patch.setattr(torch.cuda, "_HAS_PYNVML", cards.nvml)
        patch.setattr(torch.cuda, "_PYNVML_ERR", None, raising=False)
        if cards.nvml:
            library = cards.library()
            patch.setitem(sys.modules, "pynvml", library)
            patch.setattr(torch.cuda, "pynvml", library, raising=False)
        yield cards
