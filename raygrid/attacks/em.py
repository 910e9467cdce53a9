"""EM: error-minimizing noise, sample-wise and class-wise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from raygrid.attacks.base import ATTACKS, AttackContext
from raygrid.attacks.common.em_rounds import RoundsAttack
from raygrid.attacks.common.noise import ClassNoise, SampleNoise, uniform_start
from raygrid.core.images import Images
from raygrid.core.lazy import torch
from raygrid.core.literals import Scalar
from raygrid.core.registry import Card, require
from raygrid.core.seeds import Stream

if TYPE_CHECKING:
    from torch import Tensor

_PUBLISHED = "cifar10/{}/{}/resnet18/supervised/{}/0"


@ATTACKS.register("em")
@dataclass(frozen=True, kw_only=True)
class Em(RoundsAttack):
    """Noise that makes a network's loss small, so that there is nothing left to learn.

    Until the network's error on the noisy images is at most `stop_error`: `model_steps` SGD steps
    on images + noise, then signed descent of the loss in the noise with the network frozen, from
    the noise so far. `mode=sample`: float32 noise (n, C, H, W), all images, the same batches.
    `mode=class`: noise (classes, C, H, W); one step for each image of a stratified subset, and
    each class takes the mean over its images of a batch, batch after batch.
    """

    card = Card(
        paper="Huang et al. 2021, Unlearnable Examples",
        code="HanxunH/Unlearnable-Examples@f347155 (perturbation.py, toolbox.py)",
        published={
            _PUBLISHED.format("em", "standard", "learned_faster"): 0.3283,
            _PUBLISHED.format("em(mode=class)", "standard", "learned_faster"): 0.1919,
            _PUBLISHED.format("em", "standard", "tp"): 0.1847,
        },
        needs="labels",
        cost="41 forward passes per image and round, about 10 rounds; class-wise 1 per round",
        notes="the official loader drops all negative noise and truncates (`rectify`); which of "
        "both the published figures used differs by author. Recipes of APBench and D-VAE: em_apb, "
        "em_remrepo. The code computes in float32, convolutional networks here from version 3 on "
        "in bf16",
    )
    quick: ClassVar[Mapping[str, Scalar]] = {
        "surrogate": "small_cnn",
        "batch_size": 128,
        "max_rounds": 4,
        "steps": 2,
        "step": 0.5,
    }
    tiny: ClassVar[Mapping[str, Scalar]] = {
        "surrogate": "small_cnn",
        "batch_size": 32,
        "steps": 2,
        "max_rounds": 2,
    }

    mode: Literal["sample", "class"] = "sample"
    steps: int | None = None  # descent steps of a round; 20, class-wise 1
    stop_error: float | None = None  # error rate that ends the rounds; 0.01, class-wise 0.1
    max_rounds: int | None = None  # 100, class-wise 300
    noise_share: float = 0.2  # of each class that makes class-wise noise
    random_start: bool = False  # uniform noise before the first round instead of none
    rectify: bool = False  # drop negative noise and truncate, as the official loader does

    def __post_init__(self) -> None:
        super().__post_init__()
        share = self.noise_share
        require(0 < share <= 1, f"noise_share is {share}, allowed are numbers above 0 up to 1")

    @property
    def usual(self) -> tuple[int, float, int]:
        return super().usual if self.mode == "sample" else (1, 0.1, 300)

    @property
    def round_passes(self) -> float:
        return super().round_passes * (1 if self.mode == "sample" else self.noise_share)

    @property
    def shuffled(self) -> bool:
        return self.mode == "class"

    def start(self, images: Images, context: AttackContext) -> SampleNoise:
        noise = super().start(images, context)
        if self.mode == "class":
            values = torch.zeros((images.classes, *images.shape), device=context.device)
            noise = ClassNoise(images, values, noise.rows, rule="mean")
        if self.random_start:
            noise.values += uniform_start(len(noise.values), images, self.radius, context)
            if self.mode == "sample":
                owned = torch.zeros(len(images), 1, 1, 1, device=context.device)
                owned[noise.rows] = 1
                noise.values *= owned
        return noise

    def passed(self, noise: SampleNoise, context: AttackContext) -> Callable[[int], Tensor]:
        if self.mode == "sample":
            return super().passed(noise, context)
        rows = noise.rows.cpu()
        labels = noise.images.labels.cpu()[rows]
        subset = rows[stratified(labels, self.noise_share, context.stream)]

        def drawn(number: int) -> Tensor:
            rng = context.stream.generator("subset", number)
            return subset[torch.randperm(len(subset), generator=rng)].to(context.device)

        return drawn

    def propose(self, images: Images, context: AttackContext) -> Tensor:
        delta = super().propose(images, context)
        context.facts["rectified"] = self.rectify
        return rectified(delta) if self.rectify else delta


def stratified(labels: Tensor, share: float, stream: Stream) -> Tensor:
    """Random rows, the same share of every class but at least one; int64, ascending."""
    order = torch.randperm(len(labels), generator=stream.generator("stratified"))
    chosen = []
    for label in labels.unique():
        rows = order[labels[order] == label]
        chosen.append(rows[: max(1, round(share * len(rows)))])
    return torch.cat(chosen).sort().values


def rectified(delta: Tensor) -> Tensor:
    """What the official loader leaves of noise: whole levels upwards, nothing downwards."""
    # Half of 1e-3 levels: 8/255 * 255 may come out just below 8 in float32.
    return delta.clamp(min=0).mul_(255).add_(5e-4).floor_().div_(255)


@ATTACKS.register("em_apb")
@dataclass(frozen=True, kw_only=True)
class EmApb(Em):
    """EM as APBench makes it: batches of 128, 5 steps of a fifth of the budget a round."""

    card = Card(
        paper="Huang et al. 2021, as remade by Qin et al. 2024 (APBench)",
        code="lafeat/apbench@9a6fb91",
        published={
            _PUBLISHED.format("em_apb", "none", "apbench"): 0.1968,
            _PUBLISHED.format("em_apb", "standard", "apbench"): 0.2078,
            _PUBLISHED.format("em_apb(budget=16/255)", "standard", "apbench"): 0.1874,
            _PUBLISHED.format("em_apb", "grayscale", "apbench"): 0.9203,
            _PUBLISHED.format("em_apb(against=grayscale)", "standard", "apbench"): 0.1948,
            _PUBLISHED.format("em_apb(against=grayscale)", "grayscale", "apbench"): 0.2164,
            _PUBLISHED.format("em_apb(against=jpeg)", "standard", "apbench"): 0.2067,
            _PUBLISHED.format("em_apb(against=jpeg)", "jpeg", "apbench"): 0.7625,
            _PUBLISHED.format("em_apb(against=ueraser)", "standard", "apbench"): 0.3524,
            _PUBLISHED.format("em_apb(against=ueraser)", "ueraser_max", "apbench"): 0.8955,
        },
        needs="labels",
        cost="11 forward passes per image and round, about 10 rounds",
        notes="APBench's code for `against` differentiates nothing, so its figures are not of it. "
        "It computes in float32, convolutional networks here from version 3 on in bf16. "
        "Convolutions are drawn by fan-out as in its code from version 4 on",
    )
    version: ClassVar[int] = 4
    fan_out: ClassVar[bool] = True
    tiny: ClassVar[Mapping[str, Scalar]] = {
        "surrogate": "small_cnn",
        "batch_size": 16,
        "max_rounds": 3,
    }

    steps: int | None = 5
    step: float = 0.2
    batch_size: int = 128
