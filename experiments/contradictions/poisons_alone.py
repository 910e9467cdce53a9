"""What needs no victim: the images of a scale, and what attacks make of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from scales import attack_part
from settings import Setting
from torch import Tensor

from raygrid.attacks import ATTACKS
from raygrid.attacks.base import AttackContext
from raygrid.core.images import Images
from raygrid.core.seeds import Stream
from raygrid.core.spec import Part
from raygrid.datasets import DATASETS
from raygrid.reproduce.scales import COMPARISON_SIZES

ROWS = 10_000
PLAIN = Setting("")


def heading(name: str, text: str, *columns: str) -> Iterator[str]:
    """What stands above the rows of an answer, in Markdown."""
    yield from (f"## {name}", "", text, "")
    yield f"| {' | '.join(columns)} |"
    yield f"|{' --- |' * len(columns)}"


def images_of(scale: str, data: Path) -> Images:
    """The training images of a scale, of more than `ROWS` as many that are drawn."""
    images = DATASETS.make(Part.parse(COMPARISON_SIZES[scale].dataset)).load(data).train
    if len(images) <= ROWS:
        return images
    drawn = torch.randperm(len(images), generator=Stream("rows").generator())
    return images.rows(drawn[:ROWS].sort().values)


def poisoned(name: str, images: Images, scale: str, seed: int, setting: Setting = PLAIN) -> Tensor:
    """The pixels that an attack makes of images, uint8 (n, C, H, W); `clean` leaves them."""
    if name == "clean":
        return images.pixels
    attack = ATTACKS.make(attack_part(name, setting, scale))
    return attack.pixels(images, AttackContext(Stream("poison", (seed,))))
