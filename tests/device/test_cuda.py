"""What is asked of CUDA is what torch lets pass, and what its errors lead to."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.backends import cuda

from raygrid.core.device import (
    CONTEXT_MB,
    Meter,
    check_room,
    device_name,
    limit_memory,
    release,
)
from raygrid.core.device_errors import trouble
from raygrid.core.errors import DataError, DeviceError
from raygrid.engine.worker import Worker, best_device
from raygrid.nn.graphs import CudaRecorder
from raygrid.storage.store import Store
from tests.device.cuda import GIB, Machine, machine
from tests.engine.test_gpu_share import cifar, measured, share


@pytest.fixture
def one() -> Iterator[Machine]:
    with machine(Machine(busy={0: [10, 60, 50]})) as cards:
        yield cards


def test_a_process_may_take_its_share_less_the_context(one: Machine) -> None:
    """The device that a worker takes has an index: without one torch refuses the bound."""
    device = best_device()
    for part in (1 / 8, 1 / 2, 1.0):
        limit_memory(device, part)
        less = CONTEXT_MB * 2**20 / one.memory if part < 1 else 0
        assert one.fractions == {0: pytest.approx(part - less)}
    limit_memory(torch.device("cpu"), 0.5)
    assert one.calls.count("limit") == 3


def test_what_a_profile_asks_for_a_process_may_take(one: Machine) -> None:
    trial = cifar("small_cnn")
    for megabytes in (1900, 4000, 9500):
        part = share(measured(trial, megabytes), trial)
        limit_memory(best_device(), part)
        assert one.fractions[0] * one.memory / 2**20 >= megabytes


def test_a_device_without_an_index_is_what_torch_refuses(one: Machine) -> None:
    """So the test above fails where `best_device` is `cuda` alone."""
    with pytest.raises(ValueError, match=r"Expected a torch\.device with a specified index"):
        limit_memory(torch.device("cuda"), 0.5)


def test_a_meter_tells_what_a_gpu_had_to_give(one: Machine) -> None:
    meter = Meter(best_device(), 0.25)
    for _ in range(3):
        meter.sample()
    assert meter.facts() == {"memory_mb": 3072, "utilization": 0.5, "gpu_share": 0.25}
    release(meter.device)
    assert one.calls[-2:] == ["empty", "reset"]


def test_a_driver_without_nvml_costs_one_number(one: Machine) -> None:
    with machine(replace(one, nvml=False)):
        meter = Meter(best_device(), 1.0)
        meter.sample()
        assert meter.facts() == {"memory_mb": 3072, "utilization": None, "gpu_share": 1.0}


def test_of_several_cards_a_worker_takes_the_first_that_it_may_see() -> None:
    """Ray hides all but one; NVML counts the machine's, torch those that are visible."""
    cards = Machine(("NVIDIA A10G", "Tesla T4", "Tesla T4"), visible=(2, 0), busy={2: [80], 0: [5]})
    with machine(cards):
        device = best_device()
        assert (device.index, device_name(device)) == (0, "Tesla T4")
        meter = Meter(device)
        meter.sample()
        assert meter.facts()["utilization"] == 0.8
        limit_memory(device, 0.5)
        assert list(cards.fractions) == [0]


@pytest.mark.parametrize(
    ("visible", "name"), [("3", "3"), ("0, GPU-8f1c", "0"), ("GPU-8f1c,0", "GPU-8f1c"), (None, "0")]
)
def test_a_card_is_called_by_the_name_that_hides_it(
    visible: str | None, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch counts anew from 0 what it may see; Ray lets each worker see one card."""
    with machine(Machine(free=GIB)):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        with pytest.raises(DeviceError, match=rf"^GPU {name} \(NVIDIA A10G\) has 1\.0 of 22\.0"):
            check_room(best_device(), 1.0)


FUSED = [
    (getattr(cuda, f"{name}_sdp_enabled"), getattr(cuda, f"enable_{name}_sdp"))
    for name in ("flash", "mem_efficient", "cudnn")
]
"""Attention in one kernel: how torch is asked whether it may be used, and how it is told."""


def test_what_cuda_leaves_open_is_decided(one: Machine, store: Store) -> None:
    try:
        Worker(store, device=best_device())
        assert not torch.backends.cuda.matmul.allow_tf32
        assert not torch.backends.cudnn.allow_tf32
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert [asked() for asked, _ in FUSED] == [False] * 3
        assert torch.backends.cuda.math_sdp_enabled()
    finally:
        for _, enable in FUSED:
            enable(True)
        torch.use_deterministic_algorithms(False)
        torch.utils.deterministic.fill_uninitialized_memory = True
        torch.backends.cudnn.allow_tf32 = True
    Worker(store, device=torch.device("cpu"))
    assert not torch.are_deterministic_algorithms_enabled()
    assert all(asked() for asked, _ in FUSED)


def test_a_card_that_another_process_fills_is_said(one: Machine) -> None:
    check_room(best_device(), 1 / 2)
    one.free = 5 * GIB
    check_room(best_device(), 1 / 4)
    with pytest.raises(DeviceError) as said:
        check_room(best_device(), 1 / 2)
    assert str(said.value).splitlines() == [
        "GPU 0 (NVIDIA A10G) has 5.0 of 22.0 GiB free, this job's share is 11.0 GiB: another "
        "process holds the GPU; end it or hide the GPU with CUDA_VISIBLE_DEVICES"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
        "CUDA driver error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "cuFFT error: CUFFT_ALLOC_FAILED",
        "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
        "GET was unable to find an engine to execute this computation",
        "Unable to find a valid cuDNN algorithm to run convolution",
        'NVML_SUCCESS == r INTERNAL ASSERT FAILED at "../c10/cuda/CUDACachingAllocator.cpp":830',
    ],
)
def test_a_lack_of_memory_has_many_names(text: str) -> None:
    assert trouble(torch.AcceleratorError(text)) == "memory"
    assert trouble(RuntimeError(text)) == "memory"
    assert trouble(torch.OutOfMemoryError("CUDA out of memory.")) == "memory"


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: an illegal memory access was encountered",
        "CUDA error: device-side assert triggered",
        "CUDA error: unspecified launch failure",
        "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
        "CUDA driver error: 700",
    ],
)
def test_other_errors_of_cuda_mean_that_the_process_has_lost_its_device(text: str) -> None:
    assert trouble(RuntimeError(text)) == "lost"
    try:
        raise DataError("the purifier failed") from RuntimeError(text)
    except DataError as error:
        assert trouble(error) == "lost"


def test_what_cuda_warns_of_tells_whether_a_step_waits(
    one: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other warnings are passed on, and torch's mode is what it was before."""
    said = "called a synchronizing CUDA operation (Triggered internally at Copy.cu:1.)"
    with warnings.catch_warnings(record=True) as others:
        warnings.simplefilter("always")
        with CudaRecorder().waits() as found:
            assert one.debug == 1
            warnings.warn(said, stacklevel=1)
            warnings.warn("a layer is deprecated", stacklevel=1)
    assert [Path(place.rpartition(":")[0]) for place in found] == [Path(__file__)]
    assert [str(other.message) for other in others] == ["a layer is deprecated"]
    assert one.debug == 0
    with CudaRecorder().waits() as found:
        pass
    assert found == []


@pytest.mark.parametrize(
    ("inside", "fault"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), "memory"),
        (RuntimeError("CUDA error: operation not permitted when stream is capturing"), "lost"),
    ],
)
def test_a_recording_that_breaks_says_what_broke_it(
    inside: RuntimeError, fault: str, one: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA ends a broken recording with an error of its own, which says less."""

    @contextlib.contextmanager
    def capture(_: object) -> Iterator[None]:
        try:
            yield
        finally:
            raise torch.AcceleratorError("CUDA error: operation failed due to a previous error")

    def step() -> None:
        raise inside

    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    with pytest.raises(DeviceError, match="cannot be recorded, leave graphs out: CUDA") as said:
        CudaRecorder().record(step)
    assert said.value.__cause__ is inside
    assert trouble(said.value) == fault


def test_an_error_of_a_method_says_nothing_of_the_device() -> None:
    for error in (
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ValueError("CUDA error: not from torch"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        KeyError("x"),
        None,
    ):
        assert trouble(error) is None
