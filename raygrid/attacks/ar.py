"""AR: every class has an autoregressive process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from raygrid.attacks.base import ATTACKS, AttackContext
from raygrid.attacks.common.autoregression import (
    Processes,
    border_size,
    find_processes,
    grow,
    threshold,
)
from raygrid.attacks.common.piecewise import Piecewise
from raygrid.core.budget import Budget
from raygrid.core.images import Images
from raygrid.core.registry import Card, require

if TYPE_CHECKING:
    from torch import Tensor

_LANES = 2048
"""Samples whose noises grow side by side: enough to hide the loop over pixels, few for the cache"""


@ATTACKS.register("ar")
@dataclass(frozen=True, kw_only=True)
class Ar(Piecewise):
    """Noises of a class obey one linear recurrence, each from a random start of its own.

    Class c has a 3x3 filter b for each channel, b[2][2] = 0 and the other entries of sum 1. On a
    field of side S + crop the first two rows and columns are N(0, 1); all other values follow from
    s[i+2, j+2] = sum b[u][v] s[i+u, j+v]. The first `crop` rows and columns are cut off, the rest
    is scaled to the budget over all channels together.
    """

    card = Card(
        paper="Sandoval-Segura et al. 2022, Autoregressive Perturbations for Data Poisoning",
        code="psandovalsegura/autoregressive-poisoning (autoregressive.py)",
        published={
            "cifar10/ar/none/resnet18/supervised/apbench/0": 0.1263,
            "cifar10/ar/standard/resnet18/supervised/apbench/0": 0.1174,
            "cifar10/ar(budget=l2:1.5)/standard/resnet18/supervised/apbench/0": 0.1120,
            "cifar100/ar/none/resnet18/supervised/apbench/0": 0.0204,
            "cifar100/ar/standard/resnet18/supervised/apbench/0": 0.0187,
            "svhn/ar/none/resnet18/supervised/apbench/0": 0.1769,
            "svhn/ar/standard/resnet18/supervised/apbench/0": 0.1923,
            "cifar10/ar/standard/resnet18/supervised/dvae/0": 0.1250,
            "cifar100/ar/standard/resnet18/supervised/dvae/0": 0.0271,
        },
        cost="seconds on a CPU",
        notes="processes come from our own search by the published rules, not from the authors' "
        "files; APBench's file for 100 classes holds one with a coefficient of 2.35e7, so its "
        "CIFAR-100 numbers may include black images. The authors call linf suboptimal. At 224 "
        "pixels they cut off 2 instead of 4. Processes are judged on 32 pixels, as published; on "
        "224 most grow toward the last rows, which then hold the budget. Not linearly "
        "separable, against APBench's wording. Three layers trained on 1,000 CIFAR-10 images need "
        "more than the published budget: 41 to 10 % at l2:3.0",
    )
    norms: ClassVar[tuple[str, ...]] = ("l2", "linf")
    sharded: ClassVar[bool] = True
    grows: ClassVar[bool] = True

    budget: Budget = Budget("l2", 1.0)  # at 32 pixels; grows with the side
    crop: int = 4  # rows and columns of the field that are cut off, pixels
    finder_seed: int = 0  # of the search for processes, apart from the trial's seed
    min_response: float | None = None  # of filters to each other's noise; none: 10 to 3 by classes
    candidates: int = 100_000  # stable ones the search looks at before it gives up

    def __post_init__(self) -> None:
        super().__post_init__()
        require(2 <= self.crop <= 64, f"crop is {self.crop}, allowed are 2 to 64")
        require(self.finder_seed >= 0, f"finder_seed is {self.finder_seed}, allowed from 0")
        require(self.candidates >= 1, f"candidates is {self.candidates}, allowed from 1")
        positive = self.min_response is None or self.min_response > 0
        require(positive, f"min_response is {self.min_response}, allowed: none, positive numbers")

    def processes(self, classes: int, channels: int) -> Processes:
        """The processes of all classes; raises SpecError if the search fails."""
        wanted = threshold(classes) if self.min_response is None else self.min_response
        return find_processes(self.finder_seed, classes, channels, wanted, self.candidates)

    def pieces(self, images: Images, context: AttackContext) -> Iterator[Tensor]:
        channels, height, width = images.shape
        tall, wide = height + self.crop, width + self.crop
        filters = self.processes(images.classes, channels).filters.float()
        for part in context.index(images).split(_LANES):
            shape = (channels, border_size(tall, wide))
            borders = context.stream.rows("start", part, shape)
            own = filters[images.labels[part]]
            noise = grow(_lanes(own), _lanes(borders), tall, wide, self.crop)
            _scaled(noise, self.limit_at(width))
            # One flat transpose: torch has a fast path for it, not for four axes.
            flat = noise.permute(2, 0, 1, 3).flatten(0, 2).T.contiguous()
            yield flat.view(len(part), channels, height, width)


def _lanes(rows: Tensor) -> Tensor:
    """(n, C, ...) as (..., C, n): samples side by side."""
    return rows.movedim(0, -1).movedim(0, -2).contiguous()


def _scaled(noise: Tensor, limit: Budget) -> Tensor:
    """Noises (H, W, C, n) at the size of the budget, in place; all-zero ones stay zero."""
    if limit.norm == "l2":
        size = noise.square().sum((0, 1, 2)).sqrt()
    else:
        size = noise.abs().amax((0, 1, 2))
    return noise.mul_(limit.value / size.clamp_min(1e-12))
