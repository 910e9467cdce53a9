"""What is known about operators: which wait, which CUDA lacks, which keep no order of sums."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch


def _named(words: str) -> set[str]:
    return {f"aten::{word}" for word in words.split()}


COPIES = _named("_copy_from _to_copy copy_")
"""Copies between devices."""
CPU_INDEX = _named("_index_put_impl_ _unsafe_index index index_put index_put_")
"""They take indices of the host, which CUDA copies."""
READS = _named("""
    _linalg_check_errors _linalg_eigh _linalg_svd _local_scalar_dense _unique2 allclose bincount
    equal histc is_nonzero item masked_select multinomial nonzero unique_consecutive unique_dim
""")
"""The host waits for their result, or for its shape."""
SHAPES = _named("repeat_interleave")
"""The host waits for the shape unless it is told."""
FREE = _named("""
    _conj _local_scalar_dense _neg_view _reshape_alias _unsafe_view alias as_strided chunk
    detach detach_ diagonal empty empty_like empty_strided expand imag is_same_size lift_fresh
    movedim narrow new_empty new_empty_strided permute real resolve_conj select set_ slice split
    split_with_sizes squeeze squeeze_ swapaxes t transpose unbind unfold unsqueeze unsqueeze_
    view view_as_complex view_as_real
""")
"""No kernel runs."""
INTEGERS = _named("addmm addmv baddbmm bmm convolution dot mm mv")
"""Not there for integers."""
ABSENT = _named("_histogramdd_bin_edges histogram histogramdd")
"""Not there at all."""
CHAOS = _named("""
    _adaptive_avg_pool2d_backward _cdist_backward _upsample_bilinear2d_aa_backward
    adaptive_max_pool2d_backward avg_pool2d_backward bincount cumprod cumsum
    embedding_dense_backward grid_sampler_2d_backward histc index_add index_add_
    index_put_accumulate kthvalue max_pool2d_with_indices_backward median_with_indices
    nll_loss2d_forward put_ reflection_pad2d_backward replication_pad2d_backward scatter_add
    scatter_add_ scatter_reduce scatter_reduce_ upsample_bicubic2d_backward
    upsample_bilinear2d_backward upsample_nearest2d_backward
""")
"""`torch.use_deterministic_algorithms` raises or takes another kernel on CUDA."""


@dataclass(frozen=True)
class Known:
    name: str
    written: tuple[tuple[int, str], ...]  # arguments that it writes to
    returns: tuple[int | None, ...]  # which written argument each result is
    draws: bool
    generator: bool
    names: tuple[str, ...]


@functools.cache
def known(func: Any) -> Known:
    schema = func._schema
    written, alias = [], {}
    for i, arg in enumerate(schema.arguments):
        if arg.alias_info is not None and arg.alias_info.is_write:
            written.append((i, arg.name))
            for word in arg.alias_info.before_set:
                alias[word] = i
    returns: list[int | None] = []
    for ret in schema.returns:
        info = ret.alias_info
        hit = None
        if info is not None and info.is_write:
            hit = next((alias[w] for w in info.before_set if w in alias), None)
        returns.append(hit)
    names = tuple(a.name for a in schema.arguments)
    draws = torch.Tag.nondeterministic_seeded in func.tags
    return Known(schema.name, tuple(written), tuple(returns), draws, "generator" in names, names)
