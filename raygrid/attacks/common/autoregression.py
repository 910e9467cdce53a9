"""Autoregressive processes: running them on many fields at once, and finding good ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from raygrid.core.errors import SpecError
from raygrid.core.lazy import torch
from raygrid.core.seeds import Stream

if TYPE_CHECKING:
    from torch import Tensor

FIELD_SIDE, FIELD_CROP = 32, 4
"""The field on which a process is judged, as published: 36 pixels, of which 4 are cut off."""

_NOISES = 3  # noises a candidate is judged on
_MAX_NORM = 50.0  # largest raw l2 length of such a noise
_DRAWS = 200  # further noises that all have to be finite
_BATCH = 1024  # filters drawn at once


def propagate(filters: Tensor, field: Tensor) -> None:
    """Run the recursion over a field, in place.

    filters: (3, 3, *lanes) with 0 at [2, 2]; field: (H, W, *lanes), whose first two rows and
    columns are the start and whose other values are overwritten in raster order by
    field[i+2, j+2] = sum over u, v of filters[u, v] * field[i+u, j+v]. Lanes are independent; each
    pixel is one elementwise step over all of them, so results do not depend on how many there are.
    """
    width = field.shape[1]
    for i in range(2, field.shape[0]):
        row = field[i]
        above = torch.zeros_like(row[2:])
        for u in (0, 1):
            for v in (0, 1, 2):
                above.addcmul_(field[i - 2 + u, v : v + width - 2], filters[u, v])
        for j in range(2, width):
            torch.addcmul(above[j - 2], row[j - 2], filters[2, 0], out=row[j])
            row[j].addcmul_(row[j - 1], filters[2, 1])


def border_size(height: int, width: int) -> int:
    """How many values the first two rows and the first two columns hold."""
    return 2 * width + 2 * (height - 2)


def grow(filters: Tensor, borders: Tensor, height: int, width: int, crop: int) -> Tensor:
    """The noises that grow out of borders.

    filters: (3, 3, *lanes); borders: (border_size(H, W), *lanes), the two rows first. Returns
    (H - crop, W - crop, *lanes) of the same dtype.
    """
    lanes = borders.shape[1:]
    field = borders.new_empty(height, width, *lanes)
    field[:2] = borders[: 2 * width].view(2, width, *lanes)
    field[2:, :2] = borders[2 * width :].view(height - 2, 2, *lanes)
    propagate(filters, field)
    return field[crop:, crop:]


def _responses(delta: Tensor, filters: Tensor) -> Tensor:
    """(n, K, pixels) of the filters with -1 at [2, 2], correlated with the noises.

    delta: (n, C, H, W); filters: (K, C, 3, 3) with 0 at [2, 2].
    """
    full = filters.clone()
    full[..., 2, 2] = -1
    windows = torch.nn.functional.unfold(delta, 3)
    return full.flatten(1).to(delta.dtype) @ windows


@dataclass(frozen=True)
class Processes:
    """Filters float64 (K, C, 3, 3), and how many candidates were looked at to find them."""

    filters: Tensor
    candidates: int


def threshold(classes: int) -> float:
    """The published response threshold: 10 for 10 classes, 3 for 100, log-linear between and on."""
    return 10.0 if classes <= 10 else 10.0 * (10 / classes) ** math.log10(10 / 3)


@lru_cache(maxsize=4)
def find_processes(
    seed: int, classes: int, channels: int, response: float, limit: int
) -> Processes:
    """Look for processes that are stable and that answer to each other's noise.

    A candidate is accepted if the filter of each process accepted before answers to the
    candidate's noise (of length 1) with at least `response`, summed over positive answers, and if
    200 further noises of it are finite. Raises SpecError if `limit` candidates do not suffice.
    """
    found = torch.empty(0, channels, 3, 3, dtype=torch.float64)
    seen = 0
    for filters, noise in _candidates(seed, channels):
        seen += 1
        if _answers(noise, found, response) and _lasts(filters, seed):
            found = torch.cat([found, filters[None]])
        if len(found) == classes:
            return Processes(found, seen)
        if seen == limit:
            break
    raise SpecError(
        f"{seen} candidates gave {len(found)} autoregressive processes of the {classes} needed "
        f"that stay finite over {_DRAWS} noises and answer to each other; "
        f"lower min_response (now {response:.3g}) or raise candidates"
    )


def _answers(noise: Tensor, found: Tensor, response: float) -> bool:
    """Whether all filters answer to the noise (C, H, W); looks at few before it looks at all."""
    for part in found.split([min(16, len(found)), max(0, len(found) - 16)]):
        answers = _responses(noise[None].float(), part.float())[0].relu().sum(1)
        if len(part) and float(answers.min()) < response:
            return False
    return True


def _lasts(filters: Tensor, seed: int) -> bool:
    """Whether many noises of a process (C, 3, 3) are finite; the three it is judged on are few."""
    noises = _noises(filters, Stream("autoregression", (seed, "lasts")).generator(), _DRAWS)
    return bool(noises.isfinite().all())


def _noises(filters: Tensor, generator: torch.Generator, count: int = _NOISES) -> Tensor:
    """Raw noises of each filter (P, 3, 3): float64 (32, 32, P, count)."""
    size = FIELD_SIDE + FIELD_CROP
    shape = (border_size(size, size), len(filters), count)
    borders = torch.randn(shape, generator=generator, dtype=torch.float64)
    return grow(filters.permute(1, 2, 0)[..., None], borders, size, size, FIELD_CROP)


def _candidates(seed: int, channels: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless stable candidates: filters (C, 3, 3) and their last noise (C, 32, 32), of length 1.

    Stable means that no noise is longer than 50 over all channels. Channels are drawn apart and
    each has to hold that bound by itself first, which it must anyway; so candidates are
    distributed as if whole processes had been drawn and refused, at a fraction of the draws.
    """
    left = (
        torch.empty(0, 3, 3, dtype=torch.float64),
        torch.empty(0, _NOISES, FIELD_SIDE, FIELD_SIDE),
    )
    for batch in range(1_000_000):
        filters, noises = _stable(Stream("autoregression", (seed, channels, batch)).generator())
        filters, noises = torch.cat([left[0], filters]), torch.cat([left[1], noises])
        whole = len(filters) // channels * channels
        left = filters[whole:], noises[whole:]
        triples = filters[:whole].view(-1, channels, 3, 3)
        fields = noises[:whole].view(-1, channels, _NOISES, FIELD_SIDE, FIELD_SIDE)
        lengths = fields.square().sum((1, 3, 4)).sqrt()
        for i in (lengths <= _MAX_NORM).all(1).nonzero().squeeze(1).tolist():
            yield triples[i], fields[i, :, -1] / lengths[i, -1]


def _stable(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Filters (p, 3, 3) out of one batch whose noises (p, 3, 32, 32) are all short enough."""
    filters = torch.randn(_BATCH, 3, 3, generator=generator, dtype=torch.float64)
    filters[:, 2, 2] = 0
    filters /= filters.sum((1, 2), keepdim=True)
    noises = _noises(filters, generator).permute(2, 3, 0, 1)
    short = (noises.flatten(2).norm(dim=2) <= _MAX_NORM).all(1)  # NaN is not short either
    return filters[short], noises[short].contiguous()
