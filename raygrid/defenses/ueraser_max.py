"""UEraser-Max: the worst of several strong augmentations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from raygrid.defenses.base import DEFENSES, Defense
from raygrid.erasing import EXTRA, erase
from raygrid.registry import Card, Cell, lacks, require


@DEFENSES.register("ueraser_max")
@dataclass(frozen=True, kw_only=True)
class UEraserMax(Defense):
    """Each image counts with the highest loss among `repeats` augmentations of UEraser-Lite.

    Every augmented batch is a forward pass of its own in training mode. `two_pass` finds the worst
    versions without gradients and trains on a batch of them: cheaper, with other batch statistics.
    """

    card = Card(
        paper="Qin et al. 2023 (Learning the Unlearnable); Qin et al. 2024 (APBench)",
        code="lafeat/apbench@9a6fb91",
        published={
            "cifar10/em_apb/ueraser_max/resnet18/supervised/apbench/0": 0.9361,
            "cifar10/lsp/ueraser_max/resnet18/supervised/apbench/0": 0.9283,
            "cifar10/tap/ueraser_max/resnet18/supervised/apbench/0": 0.7905,
            "cifar10/ops/ueraser_max/resnet18/supervised/apbench/0": 0.7799,
        },
        needs="kornia",
        cost="5 times standard training; 2.7 times with two_pass",
        notes="UEraser's own code tiles the batch for one pass, with one TrivialAugment operation "
        "for all versions, and turns to Lite after 50 epochs, which raygrid does not do; the "
        "D-VAE protocol trains it so, and its accuracy falls after the turn",
    )
    learners: ClassVar[Literal["all", "supervised"]] = "supervised"

    repeats: int = 5  # augmentations of each image
    p: float = 0.5  # probability of each plasma step, for each image
    jpeg: bool = False  # first encode each image with a random quality of 10 to 99
    two_pass: bool = False  # train on the worst versions only

    def __post_init__(self) -> None:
        require(1 <= self.repeats <= 100, f"repeats is {self.repeats}, allowed are 1 to 100")
        require(0 <= self.p <= 1, f"p is {self.p}, allowed are 0 to 1")

    def loss(
        self, model: nn.Module, x: Tensor, y: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        if self.two_pass:
            return super().loss(model, self._worst(model, x, y, rng), y, rng)
        logits = torch.stack([model(self._draw(x, rng)) for _ in range(self.repeats)])
        losses = torch.stack([_each(scores, y) for scores in logits])
        worst, which = losses.max(0)
        return worst.mean(), logits[which, torch.arange(len(x), device=which.device)]

    def _draw(self, x: Tensor, rng: torch.Generator) -> Tensor:
        return erase(x, rng, self.p, self.jpeg)

    @torch.no_grad()
    def _worst(self, model: nn.Module, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        worst, highest = x, torch.full((len(x),), -float("inf"), device=x.device)
        for _ in range(self.repeats):
            drawn = self._draw(x, rng)
            losses = _each(model(drawn), y)
            worst = torch.where((losses > highest)[:, None, None, None], drawn, worst)
            highest = torch.maximum(losses, highest)
        return worst

    def skip(self, cell: Cell) -> str | None:
        return lacks(*EXTRA) or super().skip(cell)


def _each(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of each image, float32 (n,)."""
    return nn.functional.cross_entropy(logits.float(), y, reduction="none")
