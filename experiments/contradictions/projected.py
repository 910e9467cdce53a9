"""OP takes an image off some directions, stores it as bytes: how much of them comes back?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from poisons_alone import heading, images_of, poisoned
from torch import Tensor
from verdict import summed

from raygrid.core.images import to_uint8
from raygrid.core.seeds import Stream
from raygrid.defenses.base import FitContext
from raygrid.defenses.op import OrthogonalProjection, projected, span

SAYS = "OP's images leave the range of pixels; stored as bytes some of what it takes comes back"
MEASURED = ("clean", "lsp", "regions", "ops", "cuda")


def returned(pixels: Tensor, basis: Tensor) -> tuple[float, float]:
    """The share of the part in the basis that bytes bring back, and of values that are clipped.

    pixels: uint8 (n, C, H, W). Shares are fractions, that of the part by its root mean square.
    """
    exact = projected(pixels, basis)
    stored = to_uint8(exact)
    parts = [(kept.flatten(1).double() / 255) @ basis for kept in (pixels, stored)]
    before, after = (float(part.square().mean().sqrt()) for part in parts)
    outside = ((exact < 0) | (exact > 1)).double().mean()
    return after / before, float(outside)


def table(scale: str, data: Path, seeds: Sequence[int]) -> Iterator[str]:
    """Both shares for clean images and the poisons of some attacks."""
    images = images_of(scale, data)
    text = (
        "OP takes the part of each image in the span of a linear classifier's rows. In its code "
        "images stay real numbers, here they are clipped and rounded: which share of that part is "
        "back (root mean square), and which share of the values was clipped; percent."
    )
    yield from heading("op_bytes", text, "attack", "back", "clipped")
    for name in MEASURED:
        found = []
        for seed in seeds:
            given = images.with_pixels(poisoned(name, images, scale, seed))
            fit_context = FitContext(Stream("op", (seed,)), torch.device("cpu"))
            weight = OrthogonalProjection().fit(given, fit_context).weight
            found.append(returned(given.pixels, span(weight)))
        back, clipped = ([100 * value for value in column] for column in zip(*found, strict=True))
        yield f"| {name} | {summed(back)} | {summed(clipped)} |"
    yield ""
