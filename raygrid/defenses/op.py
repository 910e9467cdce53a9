"""OP: orthogonal projection, off the directions along which a linear classifier tells classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from raygrid.core.images import Images, to_uint8
from raygrid.core.lazy import torch
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card, Combination, require
from raygrid.defenses.base import DEFENSES, Defense, FitContext
from raygrid.nn.linear import LinearFit

if TYPE_CHECKING:
    from torch import Tensor


@DEFENSES.register("op")
@dataclass(frozen=True, kw_only=True)
class OrthogonalProjection(Defense):
    """X' = X - Q Q^T X, Q an orthonormal basis of the rows of a linear classifier of the images.

    The classifier has no bias and is fitted to the pixels in [0, 1] with their labels, without
    augmentation. Test images stay as they are.
    """

    card = Card(
        paper="Sandoval-Segura et al. 2023, What Can We Learn from Unlearnable Datasets?",
        code="psandovalsegura/learn-from-unlearnable@605dea2 (orthogonal_projection_step_1.py, "
        "_step_2.py, utils_projection.py)",
        published={
            "cifar10/em/op/resnet18/supervised/wxl/0": 0.6437,
            "cifar10/rem/op/resnet18/supervised/wxl/0": 0.2945,
            "cifar10/cuda/op/resnet18/supervised/wxl/0": 0.2866,
        },
        needs="labels",
        cost="seconds on a CPU: 20 epochs of one matrix (16 s for 50,000 images)",
        notes="the authors' victim is trained with rotation, shear, scaling, color jitter and "
        "CutMix as well, so that their number for OPS, more than 87 %, is not the projection's "
        "alone: `op` and `op+affine_jitter+cutmix(box=batch, p=0.5)` are two rows. There images "
        "stay real numbers beyond [0, 1], here they are clipped and rounded, which brings a little "
        "of what was taken away back. Its batches come in file order, here in one drawn order, "
        "smaller ones below 46,000 images",
    )
    holds: ClassVar[float] = 1.0
    tiny: ClassVar[Mapping[str, Scalar]] = {"epochs": 2}

    epochs: int = 20  # of the classifier
    directions: int | None = None  # that are taken away; none: one for each class

    def __post_init__(self) -> None:
        require(self.epochs >= 1, f"epochs is {self.epochs}, allowed are whole numbers from 1")
        count = self.directions
        require(count is None or count >= 0, f"directions is {count}, allowed: none and from 0")

    @property
    def purify_cost(self) -> float:
        return 5e-4 * self.epochs

    @property
    def fit(self) -> LinearFit:
        """How the classifier is fitted."""
        return LinearFit(self.epochs, lr=0.1, batch_size=1024, falls=(0.5, 0.75), min_steps=900)

    def skip(self, combination: Combination) -> str | None:
        count, most = self.directions, combination.classes
        if count is not None and count > most:
            return f"{self.id}: directions is {count}, allowed are none and 0 to {most} classes"
        return super().skip(combination)

    def purify(self, images: Images, fit_context: FitContext) -> Images:
        basis = span(self.fit(images, fit_context).weight, self.directions)
        parts = images.pixels.split(1000)
        return images.with_pixels(torch.cat([to_uint8(projected(p, basis)) for p in parts]))


def span(weight: Tensor, count: int | None = None) -> Tensor:
    """An orthonormal basis (values, count) of the first rows of a matrix (classes, values)."""
    rows = weight[:count].detach().cpu().double()
    basis: Tensor = torch.linalg.qr(torch.nn.functional.normalize(rows).T)[0]
    return basis


def projected(pixels: Tensor, basis: Tensor) -> Tensor:
    """uint8 (n, C, H, W) less their part in the basis: float64 in units of [0, 1], not clipped."""
    x = pixels.cpu().flatten(1).double().div_(255)
    return (x - (x @ basis) @ basis.T).view(pixels.shape)
