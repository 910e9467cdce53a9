"""AdvCL: adversarial training for contrastive learning."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from raygrid.augment import CropFlip
from raygrid.contrastive import Framework, SimClr
from raygrid.contrastive.losses import sup_con
from raygrid.defenses.ascent import Ball, frozen
from raygrid.defenses.base import DEFENSES, Defense, Pair
from raygrid.registry import Card, Cell, require

BENIGN, ADVERSARIAL = 0, 1


@DEFENSES.register("advcl")
@dataclass(frozen=True, kw_only=True)
class AdvCl(Defense):
    """SimCLR over four views: its own two, a high-pass filtered and an adversarial one.

    The last two start from a crop x0 of the image. Filtered: without the spatial frequencies
    within `cutoff` of zero, not clipped. Adversarial: from x0 + U(-radius, radius), `steps` sign
    steps up the loss over all four views within the linf ball around x0. Adversarial images have
    batch norms of their own, which are those that features are taken with afterwards.
    """

    card = Card(
        paper="Fan et al. 2021 (AdvCL); Liu et al. (Transferable Availability Poisoning), table 8",
        code="LijieFan/AdvCL",
        published={
            "cifar10/clean/advcl/resnet18/simclr/tp/0": 0.8122,
            "cifar10/em/advcl/resnet18/simclr/tp/0": 0.8085,
            "cifar10/tp/advcl/resnet18/simclr/tp/0": 0.7241,
        },
        cost="5 times SimCLR with 5 steps",
        notes="without the code's pseudo-label heads: their clusters come from a model of ImageNet "
        "and the clean training set. Liu et al. print no settings. The code climbs in training "
        "mode and embeds the other three views anew in each step; here the network is in eval "
        "mode meanwhile and they are embedded once",
    )
    learners: ClassVar[Literal["all", "supervised", "views"]] = "views"

    radius: float = 8 / 255  # largest change of a channel value, in [0, 1]
    steps: int = 5  # of the inner maximization
    step: float = 2 / 255  # size of one, in [0, 1]
    cutoff: float = 8.0  # radius of the frequencies that are taken out, in cycles per image
    flip: bool = True  # whether images may be mirrored

    def __post_init__(self) -> None:
        require(0 <= self.radius <= 1, f"radius is {self.radius}, allowed are 0 to 1")
        require(self.steps >= 0, f"steps is {self.steps}, allowed are whole numbers from 0")
        require(self.step > 0, f"step is {self.step}, allowed are positive numbers")
        require(self.cutoff >= 0, f"cutoff is {self.cutoff}, allowed are numbers from 0")

    @property
    def cost(self) -> float:
        """Views embedded, with one gradient each, over the two of SimCLR."""
        return (self.steps + 5) / 2

    def prepare(self, model: nn.Module) -> None:
        """Give every batch norm a twin for adversarial images."""
        route = Route()
        kinds = (nn.BatchNorm1d, nn.BatchNorm2d)
        norms = [name for name, module in model.named_modules() if isinstance(module, kinds)]
        for name in norms:
            parent, _, leaf = name.rpartition(".")
            norm = model.get_submodule(name)
            setattr(model.get_submodule(parent), leaf, SplitNorm(norm, route))

    def contrast(
        self, framework: Framework, x: Tensor, views: Pair, y: Tensor, rng: torch.Generator
    ) -> Tensor:
        assert isinstance(framework, SimClr), "`skip` keeps other learners away"
        x0 = CropFlip(x.shape[-1] // 8, self.flip)(x, rng)
        benign = torch.cat([*views, high_pass(x0, self.cutoff)])
        moved = self.perturb(framework, x0, benign, rng)
        z = torch.cat([embed(framework, moved, ADVERSARIAL), embed(framework, benign, BENIGN)])
        return framework.factor * agreement(framework, z, len(x))

    def perturb(
        self, framework: SimClr, x0: Tensor, benign: Tensor, rng: torch.Generator
    ) -> Tensor:
        """Images (n, C, H, W) in [0, 1] within `radius` of x0 that agree least with `benign`.

        benign: (m n, C, H, W), m views of the same images one after the other. The framework is
        left as it was.
        """
        noise = torch.rand(x0.shape, generator=rng, device=rng.device, dtype=x0.dtype)
        start = (x0 + self.radius * (2 * noise - 1)).clamp(0, 1)
        with frozen(framework):
            with torch.no_grad():
                others = embed(framework, benign, BENIGN)

            def loss(moved: Tensor) -> Tensor:
                z = torch.cat([embed(framework, moved, ADVERSARIAL), others])
                return agreement(framework, z, len(x0))

            return Ball(self.radius, self.steps, self.step).climb(loss, x0, start)

    def skip(self, cell: Cell) -> str | None:
        if cell.views and cell.learner.id != "simclr":
            return f"{self.id} is made for the learner simclr, not {cell.learner.id}"
        return super().skip(cell)


def high_pass(x: Tensor, cutoff: float) -> Tensor:
    """Images (n, C, H, W) without the frequencies within `cutoff` cycles per image of zero."""
    rows, cols = (torch.fft.fftfreq(n, 1 / n, device=x.device) for n in x.shape[-2:])
    keep = rows[:, None].square() + cols.square() > cutoff**2
    return torch.fft.ifft2(torch.fft.fft2(x) * keep).real


def agreement(framework: SimClr, z: Tensor, images: int) -> Tensor:
    """NT-Xent over all views, a scalar: the other views of an image are its positives.

    z: float32 (views * images, dim), rows of unit length, view by view.
    """
    ids = torch.arange(images, device=z.device).repeat(len(z) // images)
    return sup_con(z, ids, framework.criterion.temperature)


def embed(framework: SimClr, x: Tensor, norms: int) -> Tensor:
    """Unit projections float32 (n, dim) through one of the two sets of batch norms."""
    with through(framework, norms):
        return nn.functional.normalize(framework.branch(x), dim=1)


class Route:
    """Which set of batch norms is in use, for all of a network."""

    def __init__(self) -> None:
        self.which = ADVERSARIAL


class SplitNorm(nn.Module):
    """Two batch norms, of which images go through one."""

    def __init__(self, norm: nn.Module, route: Route) -> None:
        super().__init__()
        self.norms = nn.ModuleList([norm, copy.deepcopy(norm)])
        self.route = route

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norms[self.route.which](x)
        return out


@contextmanager
def through(model: nn.Module, which: int) -> Iterator[None]:
    """Send images through one set of batch norms; afterwards through the adversarial one."""
    routes = [m.route for m in model.modules() if isinstance(m, SplitNorm)]
    for route in routes:
        route.which = which
    try:
        yield
    finally:
        for route in routes:
            route.which = ADVERSARIAL
