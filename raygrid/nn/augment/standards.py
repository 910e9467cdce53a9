"""The standard augmentation of a dataset, by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from raygrid.core.lazy import torch
from raygrid.nn.augment.crop_flip import CropFlip
from raygrid.nn.augment.views import Views

if TYPE_CHECKING:
    from torch import Tensor


class Augmentation(Protocol):
    """What an augmentation is to its users; `flip` says whether images may be mirrored.

    mirrored: bool (n,), which images are, where that is not drawn here; without effect if none may.
    """

    @property
    def flip(self) -> bool: ...

    def __call__(
        self, x: Tensor, generator: torch.Generator, mirrored: Tensor | None = None
    ) -> Tensor: ...


_JITTERED = Views(scale=(0.08, 1.0), jitter=1.0, hue=0.2, gray=0.0)
_CROPPED = replace(_JITTERED, jitter=0.0)
_WEAK = replace(_JITTERED, brightness=0.1, contrast=0.1, saturation=0.1, hue=0.0)
_WHOLE = replace(_JITTERED, scale=(1.0, 1.0), ratio=(1.0, 1.0))
_OF_SIDE: Mapping[str, Callable[[int], Augmentation | None]] = {
    "none": lambda side: None,
    "crop": lambda side: CropFlip(side // 8, flip=False),
    "crop_flip": lambda side: CropFlip(side // 8),
    "crop4_flip": lambda side: CropFlip(4),
    "shift_flip": lambda side: CropFlip(side // 16, border="reflect"),
    "rrc_flip": lambda side: _CROPPED,
    "rrc_flip_jitter": lambda side: _JITTERED,
    "rrc_flip_jitter_weak": lambda side: _WEAK,
    "flip_jitter": lambda side: _WHOLE,
}
STANDARD_NAMES = tuple(_OF_SIDE)
"""The names that `standard` knows."""


def standard(kind: str, image_size: int) -> Augmentation | None:
    """The standard augmentation of a dataset by its name, one of `STANDARD_NAMES`.

    `crop`: after zero-padding by an eighth of the side, `crop4`: by 4 pixels. `shift`: after
    padding by a sixteenth with the mirrored image. `rrc`: a random resized crop of 8 to 100 % of
    the area. `jitter`: of brightness, contrast and saturation by 0.4, of the hue by 0.2; `weak`: by
    0.1, none of the hue.
    """
    return _OF_SIDE[kind](image_size)


def flips(kind: str) -> bool:
    """Whether images may be mirrored where this is the standard augmentation."""
    made = standard(kind, 32)
    return made is not None and made.flip
