"""CUDA: every image is convolved with the small random kernel of its class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from raygrid.attacks.base import ATTACKS, Attack, AttackContext
from raygrid.core.budget import Budget
from raygrid.core.images import Images, Quant, to_uint8
from raygrid.core.lazy import nn, torch
from raygrid.core.registry import Card, Combination, require

if TYPE_CHECKING:
    from torch import Tensor

_CHUNK = 2**18
"""Values that are convolved at once, so that the sum stays in the cache."""


@ATTACKS.register("cuda")
@dataclass(frozen=True, kw_only=True)
class Cuda(Attack):
    """Convolves the three channels of an image with its class's kernel and stretches the result.

    A kernel has entries U(0, blur), one of which, at a uniformly drawn place, becomes 1. Outside of
    the image is black, which darkens its rim; `border=reflect` does not. The result is divided by
    its largest value over all channels; an image that is black stays so.
    """

    card = Card(
        paper="Sadasivan et al. 2023, CUDA: Convolution-based Unlearnable Datasets",
        code="vinusankars/Convolution-based-Unlearnability@ff58b1c (final_filter_unlearnable.py)",
        published={
            "cifar10/cuda/standard/resnet18/supervised/cuda/0": 0.1848,
            "cifar100/cuda/standard/resnet18/supervised/cuda/0": 0.1269,
            "imagenet100/cuda/standard/resnet18/supervised/cuda/0": 0.0896,
            "cifar10/cuda/at(step=1.2/255)/resnet18/supervised/cuda/0": 0.3285,
            "cifar10/cuda/grayscale/resnet18/supervised/cuda/0": 0.2012,
            "cifar10/cuda@0.8/standard/resnet18/supervised/cuda/0": 0.8561,
        },
        needs="labels",
        cost="seconds on a CPU; at 224 pixels 81 products for each of 150,528 values",
        notes="no ball in pixels: most of the change is brightness, `budget` is a ceiling that "
        "never binds at its default, and no claim of 8/255 holds. The code throws a coin for each "
        "image where a share is poisoned and has a border of one pixel for every kernel; the "
        "border is half the kernel here, so that sides stay",
    )
    sharded: ClassVar[bool] = True

    budget: Budget = Budget("linf", 1.0)
    kernel: int | None = None  # side, an odd number of pixels; none: 3, from 224 pixels on 9
    blur: float | None = None  # largest entry but one; none: 0.3, from 224 pixels on 0.06
    quant: Quant = "trunc"  # how values become whole levels
    border: Literal["black", "reflect"] = "black"  # what is outside of an image

    def __post_init__(self) -> None:
        super().__post_init__()
        side, blur = self.kernel, self.blur
        odd = side is None or (1 <= side <= 31 and side % 2 == 1)
        require(odd, f"kernel is {side}, allowed are none and odd numbers from 1 to 31")
        positive = blur is None or 0 <= blur <= 1
        require(positive, f"blur is {blur}, allowed are none and numbers from 0 to 1")

    def propose(self, images: Images, context: AttackContext) -> Tensor:
        kernels = self.kernels(images, context).to(context.device)
        index = context.index(images)
        pixels = images.pixels[index]
        size = max(1, _CHUNK // pixels[0].numel()) if len(index) else 1
        done = 0
        for rows in index.split(size):
            x = images.floats(rows).to(context.device)
            made = convolved(x, kernels[images.labels[rows].to(context.device)], self.border)
            pixels[done : done + len(rows)] = to_uint8(over_largest(made), self.quant).cpu()
            done += len(rows)
        return pixels

    def kernels(self, images: Images, context: AttackContext) -> Tensor:
        """float32 (classes, side, side), all entries in [0, 1]."""
        large = images.shape[-1] >= 224
        side = self.kernel or (9 if large else 3)
        blur = self.blur if self.blur is not None else (0.06 if large else 0.3)
        drawn = torch.empty(images.classes, side * side)
        for label in range(images.classes):
            rng = context.stream.generator("kernel", label)
            drawn[label] = torch.rand(side * side, generator=rng) * blur
            drawn[label, torch.randint(side * side, (), generator=rng)] = 1.0
        return drawn.view(-1, side, side)

    def skip(self, combination: Combination) -> str | None:
        if self.kernel is None or self.kernel <= combination.image_size:
            return None
        return f"kernel={self.kernel} is larger than images of {combination.image_size} pixels"


def convolved(x: Tensor, kernels: Tensor, border: str = "black") -> Tensor:
    """Each image correlated with its own kernel, in all channels; outside it is black or mirrored.

    x: float32 (n, C, H, W); kernels: float32 (n, k, k), k odd. The products are added in one order
    whatever else is in the batch, so that images can be made in any company.
    """
    side = kernels.shape[-1]
    height, width = x.shape[-2:]
    mode = "reflect" if border == "reflect" else "constant"
    padded = nn.functional.pad(x, [side // 2] * 4, mode)
    out = torch.zeros_like(x)
    for i in range(side):
        for j in range(side):
            part = padded[..., i : i + height, j : j + width]
            out.addcmul_(part, kernels[:, i, j].view(-1, 1, 1, 1))
    return out


def over_largest(x: Tensor) -> Tensor:
    """Images divided by their largest value, so that it becomes 1; black ones stay black."""
    largest = x.flatten(1).amax(1).view(-1, 1, 1, 1)
    return x / torch.where(largest > 0, largest, torch.ones_like(largest))
