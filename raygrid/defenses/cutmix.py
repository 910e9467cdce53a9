"""CutMix: a box of another image, labels by area."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from raygrid.core import draws
from raygrid.core.lazy import torch
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card, require
from raygrid.defenses.base import DEFENSES, Defense

if TYPE_CHECKING:
    from torch import Tensor


@DEFENSES.register("cutmix")
@dataclass(frozen=True, kw_only=True)
class Cutmix(Defense):
    """A box of image j(i) replaces the same place of image i; j is a permutation of the batch.

    The box has floor(side * sqrt(u)) pixels a side, u ~ U(0, 1) for each image. `inside` draws one
    relative place for all boxes of a batch, which leaves the last row and column out; `clipped`
    draws each center among all pixels and cuts the box off at the border, `batch` does so once for
    all images: they share one box, or none is mixed.
    The label weight of j(i) is the share of pixels that were pasted.
    """

    card = Card(
        paper="Yun et al. 2019; Qin et al. 2024 (APBench)",
        code="lafeat/apbench@9a6fb91 (kornia RandomCutMixV2); clovaai/CutMix-PyTorch",
        published={
            "cifar10/em_apb/cutmix/resnet18/supervised/apbench/0": 0.2228,
            "cifar10/lsp/cutmix/resnet18/supervised/apbench/0": 0.1769,
            "cifar10/ops/cutmix/resnet18/supervised/apbench/0": 0.6472,
        },
        notes="APBench: inside, always, by the rule of kornia 0.6.12, which it pins: a box starts "
        "at floor(v * (side - size - 1)), with one v a batch for rows and one for columns. Version "
        "1, as kornia 0.9, had a place for each image anywhere inside. The code of ISS and PIL: "
        "cutmix(box=clipped, p=0.5) twice in a chain, but for a second partner that is unmixed "
        "there; its boxes of an odd side are a pixel smaller. The reference: cutmix(box=batch, "
        "p=0.5), p=1 on ImageNet, with such boxes too",
    )
    idle: ClassVar[tuple[Mapping[str, Scalar], ...]] = (
        {"p": 0.0},
        {"p": 0.0, "box": "clipped"},
        {"p": 0.0, "box": "batch"},
    )
    version: ClassVar[int] = 2
    learners: ClassVar[Literal["all", "supervised"]] = "supervised"
    mixes: ClassVar[bool] = True

    p: float = 1.0  # probability of mixing an image, or the batch
    box: Literal["inside", "clipped", "batch"] = "inside"

    def __post_init__(self) -> None:
        require(0 <= self.p <= 1, f"p is {self.p}, allowed are 0 to 1")

    def augment(self, x: Tensor, y: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        n, _, height, width = x.shape
        other = draws.randperm(n, rng, x.device)
        boxes = 1 if self.box == "batch" else n
        u, coin, down, right = draws.rand((4, boxes), rng, x.device)
        if self.box == "inside":
            down, right = down[:1], right[:1]
        root = torch.where(coin < self.p, u, 0.0).sqrt()
        box = self._span(height, root, down)[:, None, :, None]
        box = box & self._span(width, root, right)[:, None, None, :]
        share = box.float().mean((1, 2, 3))[:, None]
        return torch.where(box, x[other], x), (1 - share) * y + share * y[other]

    def _span(self, side: int, root: Tensor, place: Tensor) -> Tensor:
        """Rows or columns of the boxes, bool (boxes, side); root = sqrt(u).

        place: U(0, 1), of each box (boxes,) or one (1,) for all.
        """
        cut = (side * root).floor()
        if self.box == "inside":
            start = (place * (side - cut - 1)).floor()
        else:
            start = (place * side).floor() - (cut / 2).floor()
        here = torch.arange(side, device=root.device)
        return (here >= start[:, None]) & (here < (start + cut)[:, None])
