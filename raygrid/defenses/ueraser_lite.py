"""UEraser-Lite: strong augmentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from raygrid.data import Images, to_uint8
from raygrid.defenses.base import DEFENSES, Defense, Workshop
from raygrid.erasing import EXTRA, erase
from raygrid.registry import Card, Cell, lacks, require


@DEFENSES.register("ueraser_lite")
@dataclass(frozen=True, kw_only=True)
class UEraserLite(Defense):
    """Every batch goes through plasma brightness, plasma contrast, channel shuffle, TrivialAugment.

    `static` draws once for each image and stores the result, as APBench does for contrastive
    learners; its batches are drawn too, for stored images may come class by class.
    """

    card = Card(
        paper="Qin et al. 2023 (Learning the Unlearnable); Qin et al. 2024 (APBench)",
        code="lafeat/ueraser; lafeat/apbench@9a6fb91",
        published={
            "cifar10/tue/ueraser_lite(static=true)/resnet18/simclr/apbench/0": 0.6659,
            "cifar10/tue(framework=moco)/ueraser_lite(static=true)/resnet18/moco/apbench/0": 0.7482,
        },
        needs="kornia",
        cost="a tenth of standard training",
        notes="plasma with probability 1/2 as printed, 1 in APBench's code, which also adds JPEG "
        "for TAP and AR alone: here `jpeg` is never set by the attack, with a quality for each "
        "image instead of each batch. kornia's plasma has changed since 0.6.12",
    )
    version: ClassVar[int] = 2

    p: float = 0.5  # probability of each plasma step, for each image
    jpeg: bool = False  # first encode each image with a random quality of 10 to 99
    static: bool = False  # draw once and store, instead of every epoch

    def __post_init__(self) -> None:
        require(0 <= self.p <= 1, f"p is {self.p}, allowed are 0 to 1")

    @property
    def cost(self) -> float:
        return 1.0 if self.static else 1.1

    def acts(self, hook: str) -> bool:
        if hook in ("purify", "augment"):
            return self.static == (hook == "purify")
        return super().acts(hook)

    def purify(self, images: Images, workshop: Workshop) -> Images:
        if not self.static:
            return images
        out = torch.empty_like(images.pixels, device="cpu")
        order = torch.randperm(len(images), generator=workshop.stream.generator("order"))
        for number, rows in enumerate(order.split(128)):
            rng = workshop.stream.generator("erase", number, device=workshop.device)
            x = images.floats(rows).to(workshop.device)
            out[rows] = to_uint8(erase(x, rng, self.p, self.jpeg)).cpu()
        return images.with_pixels(out)

    def augment(self, x: Tensor, y: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        return (x if self.static else erase(x, rng, self.p, self.jpeg)), y

    def skip(self, cell: Cell) -> str | None:
        return lacks(*EXTRA) or super().skip(cell)
