"""AVATAR: purification by a diffusion model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from raygrid.data import Images, to_uint8
from raygrid.defenses import denoisers
from raygrid.defenses.base import DEFENSES, Defense, Workshop
from raygrid.defenses.diffusion import SOLVERS, STEPS, Noise, Solver, diffuse
from raygrid.registry import Card, Cell, lacks, require
from raygrid.spec import Scalar

_CHUNK = 250  # images a pass: part of the draws, so never a setting


@DEFENSES.register("avatar")
@dataclass(frozen=True, kw_only=True)
class Avatar(Defense):
    """Images are noised to step `steps` of a diffusion and denoised again. Labels are not used.

    The noise predictor is fitted to the training set itself, or loaded from `checkpoint`. `source`
    says what it has seen, and no number means anything without it: the published ones come from
    models of the very clean images that are purified.
    """

    card = Card(
        paper="Dolatabadi et al. 2023 (AVATAR); Qin et al. 2024 (APBench)",
        code="hmdolatabadi/AVATAR; lafeat/apbench@9a6fb91",
        published={
            "cifar10/em_apb/avatar(source=clean_train)/resnet18/supervised/apbench/0": 0.7562,
            "cifar10/lsp/avatar(source=clean_train)/resnet18/supervised/apbench/0": 0.7690,
            "cifar10/ar/avatar(source=clean_train)/resnet18/supervised/apbench/0": 0.8860,
            "cifar10/em_remrepo/avatar(source=clean_train)/resnet18/supervised/dvae/0": 0.8954,
            "cifar10/lsp/avatar(source=clean_train)/resnet18/supervised/dvae/0": 0.8115,
        },
        needs="diffusers; a noise predictor",
        cost="size s: 58 epochs of standard training for 60 steps, and 740 to fit the predictor",
        notes="60 steps in APBench, 100 in AVATAR's code. APBench's code doubles images without "
        "centering them, off the model's domain; here they are centered",
    )
    quick: ClassVar[Mapping[str, Scalar]] = {
        "size": "xs",
        "updates": 2000,
        "flip": False,
    }

    steps: int = 60  # of noise, out of 1000
    solver: Literal["euler", "ancestral"] = "euler"
    source: Literal["poisoned", "clean_train", "mismatch"] = "poisoned"  # what the predictor saw
    checkpoint: str = ""  # diffusers folder or hub id; empty: fit one to the training set
    size: Literal["xs", "s", "m"] = "s"  # of a fitted one
    updates: int = 100_000  # of its weights
    horizon: int = 150  # most steps of noise that it learns to see
    flip: bool = True  # whether images may be mirrored

    def __post_init__(self) -> None:
        require(0 <= self.steps <= STEPS, f"steps is {self.steps}, allowed are 0 to {STEPS}")
        require(self.updates >= 1, f"updates is {self.updates}, allowed are numbers from 1")
        fits = self.steps <= self.horizon <= STEPS or bool(self.checkpoint)
        require(fits, f"horizon is {self.horizon}, allowed are {self.steps} to {STEPS}")
        own = self.source == "poisoned" or bool(self.checkpoint)
        require(own, f"source is {self.source}: without a checkpoint it can only be poisoned")

    @property
    def purify_cost(self) -> float:
        """Fitting counts in epochs over 50,000 images."""
        size = {"xs": 0.18, "s": 1.0, "m": 3.9}[self.size]
        fit = 0.0 if self.checkpoint else 740 * self.updates / 100_000
        return size * (fit + 58 * self.steps / 60)

    def purify(self, images: Images, workshop: Workshop) -> Images:
        noise = self.predictor(images, workshop) if self.steps else _none
        return denoised(images, noise, SOLVERS[self.solver], self.steps, workshop)

    def predictor(self, images: Images, workshop: Workshop) -> Noise:
        """The noise predictor, loaded or fitted."""
        if self.checkpoint:
            return denoisers.loaded(self.checkpoint, images.shape[-1], workshop.device)
        plan = denoisers.DenoiserPlan(self.size, self.updates, self.horizon, self.flip)
        return denoisers.fitted(plan, images, workshop)

    def skip(self, cell: Cell) -> str | None:
        multiple = 2 ** (len(denoisers.SIZES[self.size][0]) - 1)
        if cell.image_size % multiple and not self.checkpoint:
            return f"{self.id} takes sides divisible by {multiple}, not {cell.image_size}"
        return lacks(*denoisers.EXTRA) or super().skip(cell)


def denoised(
    images: Images, noise: Noise, solver: Solver, steps: int, workshop: Workshop
) -> Images:
    """Noise the images to `steps` and solve back, some at a time."""
    parts = []
    for start, pixels in enumerate(images.pixels.split(_CHUNK)):
        rng = workshop.stream.generator("denoise", start, device=workshop.device)
        x = pixels.to(workshop.device).float().div_(255).mul_(2).sub_(1)
        x = solver(diffuse(x, steps, rng), noise, steps, rng)
        parts.append(to_uint8((x + 1) / 2).cpu())
    return images.with_pixels(torch.cat(parts))


def _none(x: torch.Tensor, i: int) -> torch.Tensor:
    return torch.zeros_like(x)
