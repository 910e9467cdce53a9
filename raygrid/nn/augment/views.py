"""The random views of contrastive learning, batched and differentiable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from raygrid.core import draws
from raygrid.core.lazy import torch
from raygrid.core.registry import require
from raygrid.nn.augment import color, resize
from raygrid.nn.augment.resize import Boxes, crop_resize

if TYPE_CHECKING:
    from torch import Tensor

VIEW_DRAWS = resize.BOX_DRAWS + 9
"""Uniform draws that one view takes."""


@dataclass(frozen=True)
class ViewParams:
    """What `Views.sample` drew for N images.

    factors: float (N, 3) for brightness, contrast, saturation; shift: float (N,) of the hue, in
    turns; order: in which the four color operations act, the same for all images of the batch;
    sigma: float (N,) of the blur, pixels. flips, jitters, grays, blurs: bool (N,), who gets it.
    """

    boxes: Boxes
    flips: Tensor
    factors: Tensor
    shift: Tensor
    order: tuple[int, ...]
    sigma: Tensor
    jitters: Tensor
    grays: Tensor
    blurs: Tensor


@dataclass(frozen=True)
class Views:
    """Random resized crop, flip, color jitter, grayscale and blur.

    scale: share of the area that is kept. ratio: width / height of the crop. jitter, gray, blur:
    probability of each. brightness, contrast, saturation: factors are uniform in 1 -+ that.
    hue: turns, uniform in -+ that. sigma: of the blur, pixels; its kernel is a tenth of the side.
    Defaults are those that contrastive learning uses on CIFAR-10 (no blur).
    """

    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True
    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    gray: float = 0.2
    blur: float = 0.0
    sigma: tuple[float, float] = (0.1, 2.0)

    def __post_init__(self) -> None:
        low, high = self.scale
        require(0 < low <= high <= 1, f"scale is {self.scale}, allowed are 0 < low <= high <= 1")
        for name in ("jitter", "gray", "blur"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"{name} is {value}, allowed are probabilities")
        require(0 <= self.hue <= 0.5, f"hue is {self.hue}, allowed are 0 to 0.5")

    @classmethod
    def of_strength(cls, strength: float, flip: bool = True) -> Views:
        """The views of AUE and AAP: everything but the flip fades with `strength` in [0, 1]."""
        require(0 <= strength <= 1, f"strength is {strength}, allowed are 0 to 1")
        return cls(
            scale=(max(1 - 0.9 * strength, 0.05), 1.0),
            flip=flip,
            jitter=min(0.99, 0.8 * strength),
            brightness=0.4 * strength,
            contrast=0.4 * strength,
            saturation=0.4 * strength,
            hue=0.1 * strength,
            gray=0.2 * strength,
        )

    def sample(self, x: Tensor, generator: torch.Generator) -> ViewParams:
        """Draw for a batch (N, C, H, W); nothing of its content matters."""
        drawn = draws.rand((len(x), VIEW_DRAWS), generator, x.device)
        order = draws.randperm(4, generator)
        return self.params(drawn, (x.shape[-2], x.shape[-1]), tuple(order.tolist()))

    def params(self, draws: Tensor, size: Sequence[int], order: tuple[int, ...]) -> ViewParams:
        """What draws stand for: uniform in [0, 1), float (N, VIEW_DRAWS), a row for each image.

        size: (H, W). order: a permutation of the four color operations, for all images.
        """
        box, draws = draws[:, : resize.BOX_DRAWS], draws[:, resize.BOX_DRAWS :]
        reach = (self.brightness, self.contrast, self.saturation)
        around = (2 * draws[:, 1:4] - 1).unbind(1)
        return ViewParams(
            boxes=resize.boxes_of(box, size, self.scale, self.ratio),
            flips=draws[:, 0] < (0.5 if self.flip else 0.0),
            factors=1 + torch.stack([d * r for d, r in zip(around, reach, strict=True)], 1),
            shift=(2 * draws[:, 4] - 1) * self.hue,
            order=order,
            sigma=self.sigma[0] + (self.sigma[1] - self.sigma[0]) * draws[:, 5],
            jitters=draws[:, 6] < self.jitter,
            grays=draws[:, 7] < self.gray,
            blurs=draws[:, 8] < self.blur,
        )

    def apply(self, x: Tensor, params: ViewParams) -> Tensor:
        """The views of float images (N, 3, H, W) in [0, 1]: pure, differentiable.

        The range stays [0, 1] up to rounding: clipping that off would cut gradients of white.
        """
        out = crop_resize(x, params.boxes, params.flips)
        if self.jitter:
            out = _where(params.jitters, _jitter(out, params), out)
        if self.gray:
            out = _where(params.grays, color.grayscale(out), out)
        if self.blur:
            kernel = max(3, x.shape[-1] // 10 | 1)
            out = _where(params.blurs, color.blur(out, params.sigma, kernel), out)
        return out

    def __call__(
        self, x: Tensor, generator: torch.Generator, mirrored: Tensor | None = None
    ) -> Tensor:
        params = self.sample(x, generator)
        if mirrored is not None and self.flip:
            params = replace(params, flips=mirrored)
        return self.apply(x, params)


@dataclass(frozen=True)
class SharedViews(Views):
    """One view for all images of a batch: what torchvision's transforms make of a batch."""

    def sample(self, x: Tensor, generator: torch.Generator) -> ViewParams:
        one, n = super().sample(x[:1], generator), len(x)

        def all_of(value: Tensor) -> Tensor:
            return value.expand(n, *value.shape[1:])

        return ViewParams(
            boxes=Boxes(all_of(one.boxes.corner), all_of(one.boxes.extent)),
            flips=all_of(one.flips),
            factors=all_of(one.factors),
            shift=all_of(one.shift),
            order=one.order,
            sigma=all_of(one.sigma),
            jitters=all_of(one.jitters),
            grays=all_of(one.grays),
            blurs=all_of(one.blurs),
        )


def _where(mask: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(mask.view(-1, 1, 1, 1), yes, no)


def _jitter(x: Tensor, params: ViewParams) -> Tensor:
    for operation in params.order:
        if operation == 0:
            x = color.brightness(x, params.factors[:, 0])
        elif operation == 1:
            x = color.contrast(x, params.factors[:, 1])
        elif operation == 2:
            x = color.saturation(x, params.factors[:, 2])
        else:
            x = color.hue(x, params.shift)
    return x
