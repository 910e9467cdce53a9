"""Heavy libraries that load at their first use: torch takes seconds, and a plan needs none of it.

Modules that only call these libraries inside of functions import them from here:
`from raygrid.core.lazy import nn, torch`. For type checkers the names are the libraries
themselves. Modules that need torch as they load, such as those that define networks, import it
as usual, and others import them inside of functions.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Library:
    """Stands for a module, which is imported when one of its attributes is asked for."""

    def __init__(self, name: str) -> None:
        self.__dict__["_name"] = name

    def __getattr__(self, name: str) -> Any:
        if name == "_module":  # kept in `__dict__`, so this happens once
            self.__dict__["_module"] = importlib.import_module(self._name)
            return self._module
        return getattr(self._module, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._module, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._module, name)

    def __dir__(self) -> list[str]:
        return dir(self._module)

    def __repr__(self) -> str:
        return f"<{self._name}, loaded at its first use>"

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        # Functions that travel to a worker by value take their globals along.
        return importlib.import_module, (self._name,)


GPU_DEVICES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd", "/dev/dxg")
"""What a Linux system has where some program could use a GPU."""


def leave_triton_out() -> None:
    """Have torch do without Triton where there is no GPU.

    torch loads it with its optimizers, and it ends a process with thirty lines on leaked objects.
    """
    if sys.platform == "linux" and not any(map(os.path.exists, GPU_DEVICES)):
        sys.modules.setdefault("triton", None)  # type: ignore[arg-type]  # as if not installed


leave_triton_out()


def no_grad(function: Callable[P, T]) -> Callable[P, T]:
    """Decorator: no gradients inside of a function, as `torch.no_grad()`; for no generators."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        with torch.no_grad():
            return function(*args, **kwargs)

    return call


if TYPE_CHECKING:
    import numpy as np
    import torch as torch
    from torch import nn as nn
    from torch.nn import functional as functional
else:
    np = Library("numpy")
    torch = Library("torch")
    nn = Library("torch.nn")
    functional = Library("torch.nn.functional")

__all__ = ["Library", "functional", "nn", "no_grad", "np", "torch"]
