"""UEraser-Max: the worst of several strong augmentations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from raygrid.defenses.base import DEFENSES, Defense
from raygrid.defenses.ueraser_lite import UEraserLite
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
            "cifar10/em_remrepo/ueraser_max(lite_after=50)/resnet18/supervised/dvae/0": 0.6711,
        },
        needs="kornia",
        cost="5 times standard training; 2.7 times with two_pass",
        notes="UEraser's own code turns to Lite after 50 epochs (30 on ImageNet subsets), and so "
        "does the D-VAE paper (`lite_after=50`, or 30), where the accuracy falls after the turn; "
        "APBench never turns (its code does on ImageNet subsets, after 50). UEraser's code tiles "
        "the batch for one pass, with one TrivialAugment operation for all versions",
    )
    learners: ClassVar[Literal["all", "supervised"]] = "supervised"

    repeats: int = 5  # augmentations of each image
    p: float = 0.5  # probability of each plasma step, for each image
    jpeg: bool = False  # first encode each image with a random quality of 10 to 99
    two_pass: bool = False  # train on the worst versions only
    lite_after: int | None = None  # epochs after which it is UEraser-Lite; none: never

    def __post_init__(self) -> None:
        require(1 <= self.repeats <= 100, f"repeats is {self.repeats}, allowed are 1 to 100")
        require(0 <= self.p <= 1, f"p is {self.p}, allowed are 0 to 1")
        turn = self.lite_after
        require(turn is None or turn >= 0, f"lite_after is {turn}, allowed are none and from 0")

    @property
    def cost(self) -> float:
        """Before it turns."""
        return 1 + self.repeats / 3 if self.two_pass else float(self.repeats)

    def during(self, epoch: int) -> Defense:
        turned = self.lite_after is not None and epoch >= self.lite_after
        return UEraserLite(p=self.p, jpeg=self.jpeg) if turned else self

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
