"""LSP: linearly separable perturbations made of class-colored blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from raygrid.attacks.base import ATTACKS, Attack, Craft
from raygrid.budget import Budget
from raygrid.data import Images
from raygrid.errors import SpecError
from raygrid.registry import Card, require


@ATTACKS.register("lsp")
@dataclass(frozen=True, kw_only=True)
class Lsp(Attack):
    """Gaussian clusters around random hypercube vertices, drawn as color blocks.

    With f = C * ceil(H/p) * ceil(W/p) features, class c has a vertex v_c of {-1, 1}^f and a matrix
    A_c with entries U(-1, 1); sample i is s_i = A_c^T r_i + separation * v_c, r_i ~ N(0, I).
    Each feature fills a p x p block of one channel; s_i is scaled to the l2 budget.
    """

    card = Card(
        paper="Yu et al. 2022, Availability Attacks Create Shortcuts",
        code="dayu11/Availability-Attacks-Create-Shortcuts (cifar_train.py)",
        published={
            "cifar10/lsp/none/resnet18/supervised/apbench/0": 0.1019,
            "cifar10/lsp/standard/resnet18/supervised/apbench/0": 0.1306,
            "cifar10/lsp/standard/resnet18/supervised/dvae/0": 0.1314,
        },
        cost="seconds on a CPU",
        notes="D-VAE prints l2 1.0 but ran the official code, 6/255 * sqrt(3072) = 1.304",
    )
    norms: ClassVar[tuple[str, ...]] = ("l2",)
    sharded: ClassVar[bool] = True
    grows: ClassVar[bool] = True

    budget: Budget = Budget("l2", 6 / 255 * math.sqrt(3072))  # at 32 pixels; grows with the side
    patch: int = 8  # side of a block, pixels
    separation: float = 10.0  # distance of a class center from 0, per feature

    def __post_init__(self) -> None:
        super().__post_init__()
        require(1 <= self.patch <= 224, f"patch is {self.patch}, allowed are 1 to 224")
        require(self.separation >= 0, f"separation is {self.separation}, allowed from 0")

    def propose(self, images: Images, craft: Craft) -> Tensor:
        channels, height, width = images.shape
        tall, wide = -(-height // self.patch), -(-width // self.patch)
        features = channels * tall * wide
        centers = self._centers(images.classes, features, craft)
        index = craft.index(images)
        labels = images.labels[index]
        draws = craft.stream.rows("sample", index, (features,))
        signal = torch.empty_like(draws)
        for label in labels.unique().tolist():  # class by class: at 224 pixels A_c is 44 MB
            generator = craft.stream.generator("mixing", label)
            mixing = torch.rand(features, features, generator=generator) * 2 - 1
            here = labels == label
            signal[here] = draws[here] @ mixing + self.separation * centers[label]
        cells = signal.view(-1, channels, tall, wide)
        blocks = cells.repeat_interleave(self.patch, 2).repeat_interleave(self.patch, 3)
        delta = blocks[:, :, :height, :width]
        length = delta.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
        return delta / length * self.limit_at(width).value

    def _centers(self, classes: int, features: int, craft: Craft) -> Tensor:
        """Distinct random vertices of {-1, 1}^features, float32 (classes, features)."""
        generator = craft.stream.generator("centers")
        for _ in range(1000):
            bits = torch.randint(2, (classes, features), generator=generator)
            if len(bits.unique(dim=0)) == classes:
                return bits.float() * 2 - 1
        raise SpecError(f"{features} features have too few vertices for {classes} classes")
