"""Batch norms that do not count their batches.

torch counts the batches of every batch norm in a tensor of its own, one more kernel for each layer
and step. The count matters only where running statistics are plain means of all batches (momentum
None); everywhere else it is dropped. State keeps its names, so weights go to and come from networks
that count.
"""

from __future__ import annotations

from typing import Any

from raygrid.core.lazy import nn, torch

BATCH_COUNTER = "num_batches_tracked"


def drop_counters(module: nn.Module) -> None:
    """Have the batch norms of a module count nothing any more; saved counts are 0."""
    for layer in module.modules():
        # the common base of all batch norms has no public name
        if not isinstance(layer, nn.modules.batchnorm._BatchNorm):
            continue
        if layer.num_batches_tracked is not None and layer.momentum is not None:
            layer.num_batches_tracked = None
            layer.register_state_dict_post_hook(_saved)
            layer.register_load_state_dict_pre_hook(_loaded)


def _saved(layer: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    state[prefix + BATCH_COUNTER] = torch.zeros((), dtype=torch.int64)


def _loaded(layer: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    state.pop(prefix + BATCH_COUNTER, None)
