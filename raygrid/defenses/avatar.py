"""AVATAR: purification by a diffusion model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from raygrid.core.errors import unknown
from raygrid.core.images import Images, to_uint8
from raygrid.core.lazy import nn, torch
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card, Combination, Method, lacks, require
from raygrid.datasets import DATASETS
from raygrid.datasets.base import Dataset
from raygrid.defenses.base import DEFENSES, Defense, FitContext
from raygrid.nn.diffusion import (
    DENOISER_PRECISION,
    DENOISER_SIZES,
    DIFFUSERS_EXTRA,
    SCHEDULE_STEPS,
    DenoiserPlan,
    NoiseSchedule,
    Predictor,
    Prior,
    content,
    diffuse,
    fault,
    fitted,
    is_file,
    loaded,
    noise_error,
    predictor,
    solver_of,
)

if TYPE_CHECKING:
    from torch import Tensor

_CHUNK = 250  # images a pass: part of the draws, so never a setting
_DATA_PARTS: Mapping[str, Literal["train", "val", "test"]] = {
    "clean_train": "train",
    "held_out": "val",
    "test": "test",
}
"""Clean images of the trial's own dataset, by what `diffusion_data` calls them."""
_ORACLE = "avatar(centered=false, diffusion_data=clean_train)"


@DEFENSES.register("avatar")
@dataclass(frozen=True, kw_only=True)
class Avatar(Defense):
    """Images are noised to step `steps` of a diffusion and denoised again. Labels are not used.

    `diffusion_data` is what the noise predictor has seen, and no number means anything without it:
    the `poisoned` training set itself; `clean_train`, the very clean images under the poison, as
    the models of the published numbers; or another dataset by its name. The grid fits it to these,
    once for all poisons, unless `checkpoint` names one: a folder or hub id of diffusers, or a file
    of score-SDE or guided-diffusion, the same on every machine. Then `diffusion_data` has to say
    what that has seen; `mismatch` is data that have no name here. `held_out` are clean images that
    the protocol holds out (its field `validation`) and nobody trains on; `test` is the test set,
    on which victims are then measured: a leak, so that such results are marked and never called
    the best.

    Before it purifies, the predictor has to tell the noise in these images better than one that
    knows mean and variance of every pixel; if it does not, the results are marked.
    """

    card = Card(
        paper="Dolatabadi et al. 2023 (AVATAR); Qin et al. 2024 (APBench)",
        code="hmdolatabadi/AVATAR@978df2e; lafeat/apbench@9a6fb91",
        published={
            f"cifar10/em_apb/{_ORACLE}/resnet18/supervised/apbench/0": 0.7562,
            f"cifar10/lsp/{_ORACLE}/resnet18/supervised/apbench/0": 0.7690,
            f"cifar10/ar/{_ORACLE}/resnet18/supervised/apbench/0": 0.8860,
            f"cifar10/em_remrepo/{_ORACLE}/resnet18/supervised/dvae/0": 0.8954,
            f"cifar10/lsp/{_ORACLE}/resnet18/supervised/dvae/0": 0.8115,
        },
        needs="diffusers; a noise predictor",
        cost="size s: 58 epochs of standard training for 60 steps, and 740 to fit the predictor",
        notes="published with score-SDE's deep DDPM++ of CIFAR-10. 60 steps in APBench, 100 in "
        "AVATAR's code. APBench's code doubles images without centering them, off the model's "
        "domain: `centered=false`, to which its numbers belong and D-VAE's, who took that code; "
        "the default is AVATAR's own. D-VAE's CIFAR-100 was purified by the predictor of CIFAR-10. "
        "Levels are rounded and cut off at both ends, as in APBench's code; AVATAR's truncates, "
        "and what is beyond black or white comes out at the other end. Networks of "
        "guided-diffusion are told the number of a step; AVATAR's code rounds its time down, to "
        "that number or the next",
    )
    version: ClassVar[int] = 2
    quick: ClassVar[Mapping[str, Scalar]] = {
        "size": "tiny",
        "updates": 2000,
        "stride": 4,
    }
    idle: ClassVar[tuple[Mapping[str, Scalar], ...]] = (
        {"steps": 0},
        {"steps": 0, "solver": "ancestral"},
        {"steps": 0, "centered": False},
    )
    tiny: ClassVar[Mapping[str, Scalar]] = {"size": "xs", "updates": 1, "steps": 1}
    effort: ClassVar[frozenset[str]] = frozenset({"size", "stride", "updates"})

    steps: int = 60  # of noise, out of 1000
    solver: Literal["euler", "ancestral"] = "euler"
    stride: int = 1  # steps that the solver takes at once; with 4 it still solves
    centered: bool = True  # whether images are put in [-1, 1], what predictors know, or [0, 2]
    diffusion_data: str = ""  # poisoned (empty), clean_train, held_out, test, mismatch, a dataset
    checkpoint: str = ""  # of the predictor; empty: it is fitted
    size: Literal["tiny", "xs", "s", "m"] = "s"  # of a fitted one
    updates: int | None = None  # of its weights; none: 100,000, of size m 300,000
    horizon: int = 150  # most steps of noise that it learns to see
    flip: bool | None = None  # whether images may be mirrored; none: where the dataset's may

    def __post_init__(self) -> None:
        most = SCHEDULE_STEPS[self.noise_schedule]
        require(0 <= self.steps <= most, f"steps is {self.steps}, allowed are 0 to {most}")
        require(self.stride >= 1, f"stride is {self.stride}, allowed are numbers from 1")
        updates = self.updates
        require(
            updates is None or updates >= 1, f"updates is {updates}, allowed are numbers from 1"
        )
        fits = self.steps <= self.horizon <= most or bool(self.checkpoint)
        require(fits, f"horizon is {self.horizon}, allowed are {self.steps} to {most}")
        self._check_data()

    def _check_data(self) -> None:
        """Raise SpecError unless it is known what the predictor has seen."""
        known = ["poisoned", *_DATA_PARTS, *(["mismatch"] if self.checkpoint else []), *DATASETS]
        if self.checkpoint:
            said = f"diffusion_data is not given: say what {self.checkpoint} has seen"
            require(bool(self.diffusion_data), f"{said}, one of {', '.join(known)}")
        elif self.diffusion_data == "poisoned":  # one name for one thing
            object.__setattr__(self, "diffusion_data", "")
        seen = self.seen
        require(seen in known, unknown("diffusion_data", seen, known))

    @property
    def noise_schedule(self) -> NoiseSchedule:
        """The schedule whose steps of noise are counted."""
        return "linear"

    @property
    def seen(self) -> str:
        """What the predictor has seen."""
        return self.diffusion_data or "poisoned"

    def resolved(self) -> dict[str, Any]:
        """Weights count by what they are, not by their place."""
        made = {"checkpoint": content(self.checkpoint), "diffusion_data": self.seen}
        return {**super().resolved(), **made, "updates": self.plan.updates}

    @property
    def plan(self) -> DenoiserPlan:
        updates = self.updates or DENOISER_SIZES[self.size].updates
        return DenoiserPlan(self.size, updates, self.horizon, self.flip)

    @property
    def prior(self) -> Prior | None:
        if self.checkpoint or not self.steps or self.seen == "poisoned":
            return None
        if part := _DATA_PARTS.get(self.seen):
            return Prior(self.plan, part=part)
        return Prior(self.plan, self.seen)

    @property
    def sees_test(self) -> bool:
        return self.seen == "test" and self.steps > 0

    @property
    def sees_clean(self) -> bool:
        return self.seen in ("clean_train", "held_out") and self.steps > 0

    @property
    def calls(self) -> int:
        """The calls of the predictor for each image."""
        return math.ceil(self.steps / self.stride)

    @property
    def purify_cost(self) -> float:
        """A fit to the poisoned set counts in epochs over 50,000 images."""
        return self.purify_cost_of(50_000, 32)

    def purify_cost_of(self, images: int, side: int) -> float:
        """A fit of so many updates, the gate's one pass over some images, and all calls."""
        fits = not self.checkpoint and self.prior is None and self.steps > 0
        gated = min(_CHUNK, images) / images if self.steps else 0.0
        fit = self.plan.cost(images) if fits else 0.0
        return fit + self.plan.passing(1) * gated + self.plan.passing(self.calls)

    @property
    def purify_precision(self) -> Literal["bf16", "fp32"]:
        """That of a predictor of our own; those of others compute in float32."""
        return "fp32" if self.checkpoint else DENOISER_PRECISION

    def purify(self, images: Images, fit_context: FitContext) -> Images:
        none = Predictor(_none, images.shape[-1])
        found = self.predictor(images, fit_context) if self.steps else none
        if self.steps and (mark := self.doubt(images, found, fit_context)):
            fit_context.marks.append(mark)
        if self.sees_test:
            fit_context.marks.append(f"{self.id}'s noise predictor was fitted to the test set")
        return self.denoised(images, found, fit_context)

    def doubt(self, images: Images, predictor: Predictor, fit_context: FitContext) -> str | None:
        """What a reader has to know if the predictor knows nothing of such images."""
        rng = fit_context.stream.generator("gate")
        rows = torch.randperm(len(images), generator=fit_context.stream.generator("gated"))[:_CHUNK]
        x = images.pixels[rows].to(fit_context.device).float().div_(127.5).sub_(1)
        off = noise_error(predictor, at_side(x, predictor.side), self.steps, rng)
        if off < 1:
            return None
        return f"{self.id}'s noise predictor is too weak: {off:.2f} times a Gaussian's error"

    def denoised(self, images: Images, predictor: Predictor, fit_context: FitContext) -> Images:
        """Noise the images to `steps` and solve back, some at a time."""
        parts, side, device = [], images.shape[-1], fit_context.device
        schedule, zero = predictor.schedule, 1.0 if self.centered else 0.0
        solve = solver_of(self.solver, schedule)
        for start, pixels in enumerate(images.pixels.split(_CHUNK)):
            rng = fit_context.stream.generator("denoise", start)
            x = pixels.to(device).float().div_(255).mul_(2).sub_(zero)
            x = at_side(x, predictor.side)
            noisy = diffuse(x, self.steps, rng, schedule)
            x = solve(noisy, predictor.noise, self.steps, rng, self.stride)
            parts.append(to_uint8((at_side(x, side) + zero) / 2).cpu())
        return images.with_pixels(torch.cat(parts))

    def predictor(self, images: Images, fit_context: FitContext) -> Predictor:
        """The noise predictor: loaded, given, or fitted to the images."""
        side, device = images.shape[-1], fit_context.device
        if self.checkpoint:
            return loaded(self.checkpoint, side, device)
        weights = fit_context.prior if self.prior else fitted(self.plan, images, fit_context)
        return predictor(self.plan, weights, side, device)

    def skip(self, combination: Combination) -> str | None:
        if self._knows(combination.dataset):
            own = combination.dataset.id
            known = f"the clean images of {own} itself: say diffusion_data=clean_train"
            return f"{self.id}(diffusion_data={self.seen}) has seen {known}"
        part = None if self.prior is None else self.prior.part
        if part == "val" and getattr(combination.protocol, "validation", 0) == 0:
            named = f"{self.id}(diffusion_data=held_out)"
            return f"{named} needs held-out images: {combination.protocol.id}(validation=0.1)"
        return self._unfit(combination.image_size) or super().skip(combination)

    def _knows(self, dataset: Method) -> bool:
        """Whether the dataset that the predictor has seen has images of the trial's."""
        if self.seen not in DATASETS:
            return False
        assert isinstance(dataset, Dataset)
        seen = DATASETS.make(self.seen)
        return seen.shares_images(dataset) or dataset.shares_images(seen)

    def _unfit(self, side: int) -> str | None:
        """Why there is no predictor for images of this size, or None."""
        if self.checkpoint:
            found = fault(self.checkpoint, side)
            return found or (None if is_file(self.checkpoint) else lacks(*DIFFUSERS_EXTRA))
        multiple = DENOISER_SIZES[self.size].multiple
        if side % multiple:
            return f"{self.id} takes sides divisible by {multiple}, not {side}"
        if self.prior and self.prior.data:
            theirs = DATASETS.make(self.prior.data).image_size
            if theirs != side:
                return f"{self.id}: {self.prior.data} has {theirs} pixels, not {side}"
        return lacks(*DIFFUSERS_EXTRA)


def at_side(x: Tensor, side: int) -> Tensor:
    """Images (n, 3, H, H) at another side."""
    if x.shape[-1] == side:
        return x
    return nn.functional.interpolate(x, size=(side, side), mode="bilinear")


def _none(x: Tensor, i: int) -> Tensor:
    return torch.zeros_like(x)
