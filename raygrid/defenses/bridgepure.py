"""BridgePure: what an attack did to a few images says how to undo it on all others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, ClassVar, Literal

from raygrid.core.errors import DataError
from raygrid.core.images import Images, count_at, to_uint8
from raygrid.core.lazy import torch
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card, Combination, lacks, require
from raygrid.defenses.base import DEFENSES, Defense, FitContext
from raygrid.nn.diffusion import (
    DENOISER_PRECISION,
    DENOISER_SIZES,
    DIFFUSERS_EXTRA,
    BridgePlan,
    BridgeSampler,
    bridge_of,
)

if TYPE_CHECKING:
    from torch import Tensor

_CHUNK = 250  # images a pass: part of the draws, so never a setting


@DEFENSES.register("bridgepure")
@dataclass(frozen=True, kw_only=True)
class BridgePure(Defense):
    """Takes poisoned images over a diffusion bridge that was fitted to `pairs` clean ones.

    Another threat model than that of all other defenses: whoever trains has clean images of the
    same distribution and sends them through the attack, which is a black box. The grid draws them
    from the training set, fits the bridge to them and their poisons, and has other images of their
    class, purified, take their places: the victim never sees them. Results are marked.
    """

    card = Card(
        paper="Wang et al. 2025, BridgePure: Limited Protection Leakage Can Break Black-Box Data "
        "Protection",
        code="EhanW/bridge-pure@3d691ab (ddbm/karras_diffusion.py, args.sh, prepare_imgs.py)",
        needs="diffusers; THE ATTACK, AND CLEAN IMAGES TO SEND THROUGH IT",
        cost="size s, 20,000 updates: a fit of 300 epochs of standard training for every attack "
        "and seed, and 115 epochs to purify",
        notes="the code fits 100,000 updates of a U-Net of 192 channels in float16 by RAdam, "
        "here they are fewer and smaller, by Adam: `size=m, updates=100000` is nearest to it. Its "
        "victim trains on 40,000 images, of which none is among the pairs; here on all, those of "
        "the pairs replaced. Attacks that make the noise of a whole set at once leak more through "
        "the pairs than a black box that gets them alone. Pixels are cut off to whole levels "
        "there, here rounded. The paper's tables were not read",
    )
    quick: ClassVar[Mapping[str, Scalar]] = {
        "size": "tiny",
        "updates": 2000,
        "lr": 0.002,
        "pairs": 64,
        "steps": 8,
        "churn": 0.0,
    }
    tiny: ClassVar[Mapping[str, Scalar]] = {"size": "xs", "updates": 1, "steps": 1, "pairs": 2}
    effort: ClassVar[frozenset[str]] = frozenset({"lr", "size", "steps", "updates"})

    informed: ClassVar[bool] = True

    pairs: int = 500  # clean images that were sent through the attack
    size: Literal["tiny", "xs", "s", "m"] = "s"
    updates: int = 20_000  # of the bridge's weights
    lr: float = 1e-4
    steps: int = 40
    churn: float = 0.33  # share of a step that is taken with noise first
    guidance: float = 0.5  # weight of the pull away from the poisoned image
    flip: bool | None = None  # whether pairs may be mirrored; none: where the dataset's may

    def __post_init__(self) -> None:
        for name in ("pairs", "updates", "steps"):
            value = getattr(self, name)
            require(value >= 1, f"{name} is {value}, allowed are whole numbers from 1")
        require(self.lr > 0, f"lr is {self.lr}, allowed are positive numbers")
        require(0 <= self.churn < 1, f"churn is {self.churn}, allowed are 0 to below 1")
        require(self.guidance >= 0, f"guidance is {self.guidance}, allowed are numbers from 0")

    @property
    def plan(self) -> BridgePlan:
        return BridgePlan(self.size, self.updates, self.pairs, self.lr, self.flip)

    @property
    def sampler(self) -> BridgeSampler:
        return BridgeSampler(self.steps, self.churn, self.guidance)

    @property
    def prior(self) -> BridgePlan:
        return self.plan

    @property
    def purify_cost(self) -> float:
        return self.plan.passing(self.sampler.calls)

    @property
    def purify_precision(self) -> Literal["bf16", "fp32"]:
        return DENOISER_PRECISION

    def purify(self, images: Images, fit_context: FitContext) -> Images:
        weights, device = dict(fit_context.prior), fit_context.device
        rows = weights.pop("rows", None)
        if rows is None:
            raise DataError("it was given no bridge: only a grid knows the attack that fits one")
        bridge, parts = bridge_of(self.plan, weights, images.shape[-1], device), []
        for start, pixels in enumerate(images.pixels.split(_CHUNK)):
            rng = fit_context.stream.generator("bridge", start)
            x = pixels.to(device).float().div_(127.5).sub_(1)
            parts.append(to_uint8((self.sampler(x, bridge(x), rng) + 1) / 2).cpu())
        purified = torch.cat(parts)
        purified[rows] = purified[stand_ins(images.labels.cpu(), rows)]
        fit_context.marks.append(
            f"{self.id} knows {len(rows)} clean images and what the attack makes of them, another "
            "threat model"
        )
        return images.with_pixels(purified)

    def skip(self, combination: Combination) -> str | None:
        multiple = DENOISER_SIZES[self.size].multiple
        if combination.image_size % multiple:
            return f"{self.id} takes sides divisible by {multiple}, not {combination.image_size}"
        if combination.targets:
            return f"{self.id} undoes attacks on all images, not those on a target"
        if getattr(combination.attack, "withholds", False):
            return (
                f"{self.id}: {combination.attack.id} takes images away, of which there are no pairs"
            )
        before = list(takewhile(lambda link: link is not self, combination.defense))
        if first := next((d for d in before if isinstance(d, Defense) and d.acts("purify")), None):
            return f"{self.id} is fitted to poisons as they are: it stands before {first.id}"
        poisoned = count_at(combination.poison_ratio, combination.train_size)
        if poisoned and poisoned < 2 * self.pairs:
            return f"{self.id}: {poisoned} images are poisoned, too few for {self.pairs} pairs"
        return lacks(*DIFFUSERS_EXTRA) or super().skip(combination)


def stand_ins(labels: Tensor, rows: Tensor) -> Tensor:
    """Other rows of the same labels for each of these, int64, none of which is among them.

    They are taken in turn. Raises DataError for a class that has no other.
    """
    free = torch.ones(len(labels), dtype=torch.bool)
    free[rows] = False
    found = torch.empty_like(rows)
    for label in labels[rows].unique().tolist():
        theirs, others = labels[rows] == label, (free & (labels == label)).nonzero().flatten()
        if not len(others):
            raise DataError(f"all images of class {label} are among the pairs")
        found[theirs] = others[torch.arange(int(theirs.sum())) % len(others)]
    return found
