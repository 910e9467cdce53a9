"""Features of a frozen extractor under augmentation, row by row the same whoever computes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raygrid.core.errors import SpecError
from raygrid.core.images import Images
from raygrid.core.lazy import torch
from raygrid.core.seeds import Stream
from raygrid.learners.common.features import FEATURE_CHUNK, features_of
from raygrid.nn.augment import Augmentation
from raygrid.nn.augment.crop_flip import CropFlip

if TYPE_CHECKING:
    from torch import Tensor

    from raygrid.architectures.networks.network import Network

_BLOCK = 256


def augmented_features(
    network: Network, images: Images, rows: Tensor, augmentation: Augmentation | None, number: int
) -> Tensor:
    """Features float32 (N, width) of pass `number` over augmented images, in float32.

    rows: int64 (N,), the place of each image in the whole data set. A row's crop and flip are a
    function of the pass and the row alone, so a poison is augmented as its base would be.
    """
    if not len(images):
        return torch.empty(0, network.width)
    if augmentation is None:
        return features_of(network, images, "fp32")
    if not isinstance(augmentation, CropFlip):
        raise SpecError("features can be kept under crops and flips of small images; use cache=0")
    offsets, flips = (d.to(images.device) for d in _draws(augmentation, rows, number))
    parts = []
    with torch.no_grad():
        for start in range(0, len(images), FEATURE_CHUNK):
            some = slice(start, start + FEATURE_CHUNK)
            seen = augmentation.apply(images.floats(some), (offsets[some], flips[some]))
            parts.append(network.eval().features(seen).float())
    return torch.cat(parts)


def _draws(augmentation: CropFlip, rows: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Offsets and flips of rows; drawn in blocks of rows."""
    offsets = torch.zeros(len(rows), 2, dtype=torch.int64)
    flips = torch.zeros(len(rows), dtype=torch.bool)
    blocks = torch.div(rows, _BLOCK, rounding_mode="floor")
    like = torch.empty(_BLOCK, 1)
    for block in blocks.unique().tolist():
        rng = Stream("features", (augmentation.padding, augmentation.flip)).generator(number, block)
        drawn, mirrored = augmentation.sample(like, rng)
        here = blocks == block
        within = rows[here] - block * _BLOCK
        offsets[here], flips[here] = drawn[within], mirrored[within]
    return offsets, flips
