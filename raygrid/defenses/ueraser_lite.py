"""UEraser-Lite: strong augmentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from raygrid.core.images import Images, to_uint8
from raygrid.core.lazy import torch
from raygrid.core.registry import Card
from raygrid.defenses.base import DEFENSES, Defense, FitContext
from raygrid.nn.augment.ueraser import Erasing

if TYPE_CHECKING:
    from torch import Tensor


@DEFENSES.register("ueraser_lite")
@dataclass(frozen=True, kw_only=True)
class UEraserLite(Erasing, Defense):
    """Every batch goes through plasma brightness, plasma contrast, channel shuffle, TrivialAugment.

    `static` draws once for each image and stores the result, as APBench does for contrastive
    learners, 512 images with one operation; its batches are drawn too, for stored images may come
    class by class.
    """

    card = Card(
        paper="Qin et al. 2023 (Learning the Unlearnable); Qin et al. 2024 (APBench)",
        code="lafeat/ueraser; lafeat/apbench@9a6fb91",
        published={
            "cifar10/tue/ueraser_lite(static=true)/resnet18/simclr/apbench/0": 0.6659,
            "cifar10/tue(framework=moco)/ueraser_lite(static=true)/resnet18/moco/apbench/0": 0.7482,
        },
        cost="a tenth of standard training",
        notes="APBench stores 512 at a time in the order of a directory listing. "
        "Plasma with probability 1/2 as printed and in UEraser's own code, 1 in APBench's. "
        "That adds JPEG for TAP and AR alone, with p=0.8: jpeg=before, here never set by the "
        "attack; UEraser's own has jpeg=after. Both code a batch as one picture and read it half a "
        "level too dark, here each image is coded by itself. APBench's code for ImageNet-100: p=1, "
        "jpeg=before, strength=0.3, roughness=0.1. Plasma and TrivialAugment are kornia's 0.6.12, "
        "which APBench pins and behind which the printed numbers lie: up to 0.8.2 it draws shears "
        "in degrees (0 to 0.3, nearly nothing), rotations and shifts to one side only. "
        "policy=trivial_wide is kornia 0.9's: shears to 54 degrees, both sides. Version 2 was "
        "whichever of them was installed, with the plasma of 0.9 (brighter at its border)",
    )
    version: ClassVar[int] = 3

    static: bool = False  # draw once and store, instead of every epoch

    @property
    def cost(self) -> float:
        return 1.0 if self.static else 1.1

    def acts(self, hook: str) -> bool:
        if hook in ("purify", "augment"):
            return self.static == (hook == "purify")
        return super().acts(hook)

    def purify(self, images: Images, fit_context: FitContext) -> Images:
        if not self.static:
            return images
        out = torch.empty_like(images.pixels, device="cpu")
        order = torch.randperm(len(images), generator=fit_context.stream.generator("order"))
        for number, rows in enumerate(order.split(512)):
            rng = fit_context.stream.generator("erase", number)
            x = images.floats(rows).to(fit_context.device)
            out[rows] = to_uint8(self.erase(x, rng)).cpu()
        return images.with_pixels(out)

    def augment(self, x: Tensor, y: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        return (x if self.static else self.erase(x, rng)), y
