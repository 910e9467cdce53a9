"""Every operation on the device: refused where CUDA refuses it, counted, done on the CPU."""

from __future__ import annotations

from typing import Any

import torch

from tests.device.pretend.log import LOG, where
from tests.device.pretend.operators import (
    ABSENT,
    CHAOS,
    COPIES,
    CPU_INDEX,
    FREE,
    INTEGERS,
    READS,
    SHAPES,
    Known,
    known,
)
from tests.device.pretend.tape import recorded
from tests.device.pretend.tensors import NAME, OnDevice, bare, dressed, narrowed, tensors, widened

RESIZING = {f"aten::{n}" for n in ("squeeze_", "unsqueeze_", "t_", "transpose_", "arange")}
FORKED: list[bool] = []
"""Not empty while draws from the global generators are put back afterwards."""


def launch(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    op = known(func)
    given = list(tensors(args)) + list(tensors(kwargs.values()))
    mine = [t for t in given if isinstance(t, OnDevice)]
    others = [t for t in given if not isinstance(t, OnDevice)]
    asked = kwargs.get("device")
    on = torch.device(asked).type == NAME if asked is not None else bool(mine)
    check(op, args, kwargs, mine, others, on)
    raw_kwargs = {k: bare(v) for k, v in kwargs.items()}
    if op.name in ("aten::_to_copy", "aten::empty", "aten::empty_strided"):
        raw_kwargs.pop("pin_memory", None)
    out = recorded(on_cpu, func, [bare(a) for a in args], raw_kwargs)
    if op.written:
        return results(op, args, kwargs, out)
    if isinstance(out, torch.Tensor) and mine and not on:
        for t in mine:
            if t._raw is out:
                out = out.clone()
    return dressed(out) if on else out


def on_cpu(func: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """An operation on bare values."""
    try:
        return func(*args, **kwargs)
    except NotImplementedError:  # a CPU kernel that has no bf16, which CUDA's has
        wide = [widened(a) for a in args]
        return narrowed(func(*wide, **{k: widened(v) for k, v in kwargs.items()}))


def _resize(arg: Any) -> None:
    """Do to the wrapper's own sizes what was done to its values."""
    torch.Tensor.data.__set__(arg, OnDevice(arg._raw))


def results(op: Known, args: Any, kwargs: dict[str, Any], out: Any) -> Any:
    def one(position: int | None, value: Any) -> Any:
        if position is None:
            return dressed(value)
        if position < len(args):
            return args[position]
        return kwargs[op.names[position]]

    for position, name in op.written:  # sizes can change: out= and resize_
        arg = args[position] if position < len(args) else kwargs.get(name)
        if isinstance(arg, OnDevice) and (
            arg.size() != arg._raw.size()
            or (arg.stride() != arg._raw.stride() and op.name != "aten::as_strided_")
        ):
            if op.name in (
                "aten::squeeze_",
                "aten::unsqueeze_",
                "aten::t_",
                "aten::transpose_",
                "aten::arange",
            ):
                _resize(arg)
                continue
            LOG.refuse(op.name, "a written tensor changed its shape (limit of the pretend device)")
    if isinstance(out, tuple) and len(op.returns) > 1:
        return tuple(one(p, v) for p, v in zip(op.returns, out, strict=True))
    if len(op.returns) == 1:
        return one(op.returns[0], out)
    return out


def check(op: Known, args: Any, kwargs: Any, mine: Any, others: Any, on: bool) -> None:
    name = op.name
    if mine and others and name not in COPIES:
        _devices(op, args, others)
    _generators(op, args, kwargs, mine, on)
    if not (mine or on):
        return
    # 3. what CUDA has not
    if name in INTEGERS and mine and not mine[0].is_floating_point() and not mine[0].is_complex():
        LOG.refuse(name, f"not implemented for {mine[0].dtype} on CUDA")
    if name in ABSENT:
        LOG.refuse(name, "not implemented on CUDA")
    # 4. waiting
    wait(op, args, kwargs, mine, others, on)
    # 5. counting
    if name not in FREE:
        LOG.kernels[(name, where() if LOG.sites else "")] += 1
    if name in CHAOS or (name.startswith("aten::index_put") and len(args) > 3 and args[3] is True):
        LOG.chaotic[(name, where())] += 1


def _devices(op: Known, args: Any, others: Any) -> None:
    """Tensors of two devices: CUDA takes single numbers, and indices, which it fetches."""
    name = op.name
    big = [t for t in others if t.dim() > 0]
    if name in CPU_INDEX:
        if not isinstance(args[0], OnDevice):
            LOG.refuse(name, "a CPU tensor is indexed by, or given values of, the device")
        indices = [t for t in tensors([args[1]]) if not isinstance(t, OnDevice)]
        if indices:
            LOG.uploads[(name, where())] += 1
            LOG.upload_bytes[(name, where())] += sum(t.numel() * t.element_size() for t in indices)
        values = [t for t in tensors(args[2:3]) if not isinstance(t, OnDevice) and t.dim() > 0]
        if values:
            LOG.refuse(name, "values on the CPU for a tensor of the device")
    elif big:
        shapes = ", ".join(str(tuple(t.shape)) for t in big[:3])
        LOG.refuse(name, f"CPU tensors {shapes} with tensors of the device")
    else:
        for position, _ in op.written:
            if position < len(args) and any(
                a is t for a in tensors([args[position]]) for t in others
            ):
                LOG.refuse(name, "a CPU tensor is written with values of the device")


def _generators(op: Known, args: Any, kwargs: Any, mine: Any, on: bool) -> None:
    """Every draw names its generator, one of the host, and is made there."""
    generator = kwargs.get("generator")
    if generator is None and op.generator:
        at = op.names.index("generator")
        generator = args[at] if at < len(args) else None
    if generator is not None and on:
        LOG.refuse(op.name, "a CPU generator for a tensor of the device")
    if generator is None and op.draws and not FORKED and (op.generator or mine):
        LOG.drawn[(op.name, where())] += 1


def wait(op: Known, args: Any, kwargs: Any, mine: Any, others: Any, on: bool) -> None:
    name = op.name
    if name in COPIES:
        source = args[1] if name == "aten::copy_" else args[0]
        target = isinstance(args[0], OnDevice) if name == "aten::copy_" else on
        size = source.numel() * source.element_size()
        if isinstance(source, OnDevice) and not target:
            LOG.syncs[(name + " to CPU", where())] += 1
            LOG.download_bytes[(name, where())] += size
        elif target and not isinstance(source, OnDevice):
            quick = kwargs.get("non_blocking") or (len(args) > 2 and args[2] is True)
            key = name + (" (non_blocking)" if quick else "") + " from CPU"
            LOG.uploads[(key, where())] += 1
            LOG.upload_bytes[(key, where())] += size
    elif name in READS:
        LOG.syncs[(name, where())] += 1
    elif name in CPU_INDEX:
        if any(t.dtype in (torch.bool, torch.uint8) for t in tensors([args[1]])):
            scalar = name.startswith("aten::index_put") and args[2].dim() == 0
            if not scalar:
                LOG.syncs[(name + " by mask", where())] += 1
    elif name in SHAPES and kwargs.get("output_size") is None:
        LOG.syncs[(name, where())] += 1
