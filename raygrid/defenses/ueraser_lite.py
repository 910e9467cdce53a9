"""UEraser-Lite: strong augmentation."""

from __future__ import annotations

from dataclasses import dataclass

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
    learners.
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
        parts = []
        for number, part in enumerate(images.pixels.split(128)):
            rng = workshop.stream.generator("erase", number, device=workshop.device)
            x = part.to(workshop.device).float().div_(255)
            parts.append(to_uint8(erase(x, rng, self.p, self.jpeg)).cpu())
        return images.with_pixels(torch.cat(parts))

    def augment(self, x: Tensor, y: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        return (x if self.static else erase(x, rng, self.p, self.jpeg)), y

    def skip(self, cell: Cell) -> str | None:
        return lacks(*EXTRA) or super().skip(cell)
