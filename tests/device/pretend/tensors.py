"""The device's tensors: wrappers that say `pretend:0` and hold real values of the CPU."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import torch
import torch.utils.backend_registration as registration

from tests.device.pretend.log import LOG

NAME = "pretend"


class Backend(registration._DummyBackendModule):
    """What torch asks a backend's module."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def get_rng_state(self, device: Any = None) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor, device: Any = None) -> None: ...

    def synchronize(self, device: Any = None) -> None: ...


registration._setup_privateuseone_for_python_backend(NAME, Backend())
CPU = torch.device("cpu")
DEVICE = torch.device(f"{NAME}:0")


class OnDevice(torch.Tensor):
    """A tensor of the pretend device; `_raw` holds its values."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, raw: torch.Tensor) -> OnDevice:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            raw.size(),
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            layout=raw.layout,
            device=DEVICE,
            requires_grad=False,
        )
        made._raw = raw
        return made

    def __repr__(self, **_: Any) -> str:
        return f"OnDevice({self._raw!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) in memo:
            return memo[id(self)]
        copied = OnDevice(self._raw.clone())
        copied.requires_grad_(self.requires_grad)
        if getattr(self, "_is_param", False):
            copied._is_param = True
        memo[id(self)] = copied
        return copied

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def new_tensor(self, data: Any, **options: Any) -> torch.Tensor:
        return torch.tensor(data, **{"dtype": self.dtype, **options, "device": None}).to(
            self.device
        )

    @property
    def data(self) -> Any:
        return self.detach()

    @data.setter
    def data(self, value: Any) -> None:
        torch.Tensor.data.__set__(self, value)
        self._raw = value._raw

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        from tests.device.pretend.launch import launch

        return launch(func, args, kwargs or {})


def tensors(args: Any) -> Iterator[torch.Tensor]:
    for a in args:
        if isinstance(a, torch.Tensor):
            yield a
        elif isinstance(a, list | tuple):
            yield from tensors(a)


def bare(value: Any) -> Any:
    if isinstance(value, OnDevice):
        return value._raw
    if isinstance(value, list | tuple):
        return type(value)(bare(v) for v in value)
    if isinstance(value, torch.device) and value.type == NAME:
        return CPU
    return value


def widened(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.dtype in (torch.bfloat16, torch.float16):
        return value.float()
    if isinstance(value, list | tuple):
        return type(value)(widened(v) for v in value)
    return value


def narrowed(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.dtype == torch.float32:
        return value.to(torch.bfloat16)
    if isinstance(value, list | tuple):
        return type(value)(narrowed(v) for v in value)
    return value


def dressed(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value if isinstance(value, OnDevice) else note(OnDevice(value))
    if isinstance(value, list | tuple):
        return type(value)(dressed(v) for v in value)
    return value


SEEN: dict[int, int] = {}


def note(made: OnDevice) -> OnDevice:
    """Count the bytes of storages that tensors of the device hold."""
    storage = made._raw.untyped_storage()
    key = storage._cdata
    if key not in SEEN:
        SEEN[key] = 0
        LOG.live += storage.nbytes()
        LOG.peak = max(LOG.peak, LOG.live)
    SEEN[key] += 1
    weakref.finalize(made, forget, key, storage.nbytes())
    return made


def forget(key: int, size: int) -> None:
    SEEN[key] -= 1
    if SEEN[key] == 0:
        del SEEN[key]
        LOG.live -= size
