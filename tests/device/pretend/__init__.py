"""A pretend accelerator on PyTorch's PrivateUse1: tensors say `pretend:0` and obey CUDA's rules.

`x.device`, autograd, autocast, `.to`, factories and optimizers all believe in it. Values are those
that the same code gives on a CPU, so a run here equals one there bit for bit, except where CUDA's
autocast lists differ from the CPU's. `watched` counts and refuses. Start with `launch.py`.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils import _foreach_utils
from torch.utils._python_dispatch import TorchDispatchMode

from tests.device.pretend.autocast import _kernel, autocast_lists
from tests.device.pretend.launch import FORKED, check, launch
from tests.device.pretend.log import LOG, Log, Mixed
from tests.device.pretend.operators import known
from tests.device.pretend.tensors import CPU, DEVICE, NAME, OnDevice, tensors

__all__ = ["CPU", "DEVICE", "LOG", "Log", "Mixed", "OnDevice", "setup", "watched"]

_tensor, _as_tensor = torch.tensor, torch.as_tensor
_fork = torch.random.fork_rng
_LIBRARIES: list[Any] = []


def tensor(data: Any, *, device: Any = None, **options: Any) -> torch.Tensor:
    if device is not None and torch.device(device).type == NAME:
        grad = options.pop("requires_grad", False)
        return _tensor(data, **options).to(device).requires_grad_(grad)
    return _tensor(data, device=device, **options)


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> torch.Tensor:
    if device is not None and torch.device(device).type == NAME:
        return (data if isinstance(data, torch.Tensor) else _as_tensor(data)).to(
            device, dtype=dtype
        )
    return _as_tensor(data, dtype=dtype, device=device)


class Draws(TorchDispatchMode):
    """Draws on the CPU do not pass the device: whose generator do they use?"""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded in func.tags and not any(
            isinstance(t, OnDevice) for t in tensors(args)
        ):
            asked = kwargs.get("device")
            if asked is None or torch.device(asked).type == "cpu":
                check(known(func), args, kwargs, [], [], False)
        return func(*args, **kwargs)


@contextlib.contextmanager
def fork_rng(*args: Any, **kwargs: Any) -> Iterator[None]:
    FORKED.append(True)
    try:
        with _fork(*args, **kwargs):
            yield
    finally:
        FORKED.pop()


def setup() -> torch.device:
    """Make the device real for this process, once."""
    if _LIBRARIES:
        return DEVICE
    fallback = torch.library.Library("_", "IMPL")
    fallback.fallback(lambda func, *args, **kwargs: launch(func, args, kwargs), "PrivateUse1")
    fallback.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    whole = torch.library.Library("aten", "IMPL", "PrivateUse1")
    for packet in (
        "arange",
        "linspace",
        "logspace",
        "eye",
        "randperm",
        "range",
        "tril_indices",
        "triu_indices",
        "hann_window",
    ):
        for overload in getattr(torch.ops.aten, packet).overloads():
            op = getattr(getattr(torch.ops.aten, packet), overload)
            if "out" not in overload and any(a.name == "device" for a in op._schema.arguments):
                whole.impl(op, functools.partial(lambda f, *a, **k: launch(f, a, k), op))
    cast = torch.library.Library("aten", "IMPL", "AutocastPrivateUse1")
    for kind, names in autocast_lists().items():
        for name in names:
            packet, _, overload = name.partition(".")
            try:
                op = getattr(getattr(torch.ops.aten, packet), overload)
            except AttributeError:
                continue
            cast.impl(op, _kernel(op, kind))
    _LIBRARIES.extend([fallback, cast, whole])
    _foreach_utils._foreach_supported_types.append(OnDevice)
    return DEVICE


@contextlib.contextmanager
def watched(strict: bool = True, sites: bool = False) -> Iterator[Log]:
    """Use the device, counted from zero; strict: raise what CUDA would raise."""
    setup()
    LOG.reset()
    LOG.strict, LOG.sites = strict, sites
    with pytest.MonkeyPatch.context() as patch, Draws():
        patch.setattr(torch, "tensor", tensor)
        patch.setattr(torch, "as_tensor", as_tensor)
        patch.setattr(torch.random, "fork_rng", fork_rng)
        yield LOG
