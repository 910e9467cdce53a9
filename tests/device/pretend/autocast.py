"""Autocast by CUDA's lists of operators, read from a header that torch ships."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from tests.device.pretend.tensors import NAME, OnDevice, tensors


def autocast_lists() -> dict[str, list[str]]:
    """CUDA's lists, read from the header that torch ships."""
    header = Path(torch.__file__).parent / "include/ATen/autocast_mode.h"
    text = header.read_text()
    found = {}
    for title in ("LOWER_PRECISION_FP", "FP32", "FP32_SET_OPT_DTYPE", "PROMOTE"):
        body = re.search(rf"#define AT_FORALL_{title}\(_\)(.*?)\n\n", text, re.S)
        assert body is not None, title
        pairs = re.findall(r"_\((\w+)(?:, (\w+))?\)", body[1])
        found[title] = [f"{name}.{overload or 'default'}" for name, overload in pairs]
    return found


GUARD = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, OnDevice) and value.is_floating_point() and value.dtype != torch.float64:
        return value.to(dtype)
    if isinstance(value, list | tuple):
        return type(value)(_cast(v, dtype) for v in value)
    return value


def _kernel(op: Any, kind: str) -> Any:
    names = [a.name for a in op._schema.arguments]
    kwonly = {a.name for a in op._schema.arguments if a.kwarg_only}

    def run(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(GUARD):
            if kind == "LOWER_PRECISION_FP":
                dtype = torch.get_autocast_dtype(NAME)
                return op(*_cast(args, dtype), **{k: _cast(v, dtype) for k, v in kwargs.items()})
            if kind == "FP32":
                return op(
                    *_cast(args, torch.float32),
                    **{k: _cast(v, torch.float32) for k, v in kwargs.items()},
                )
            if kind == "PROMOTE":
                floats = [t.dtype for t in tensors(args) if t.is_floating_point()]
                wide = torch.float32 if torch.float32 in floats else (floats or [torch.float32])[0]
                return op(*_cast(args, wide), **kwargs)
            at = names.index("dtype")
            there = (
                kwargs.get("dtype") if "dtype" in kwonly else (args[at] if at < len(args) else None)
            )
            if there is None and args[0].is_floating_point():
                kwargs["dtype"] = torch.float32
                args = args[:at] if "dtype" not in kwonly else args
            return op(*args, **kwargs)

    return run
