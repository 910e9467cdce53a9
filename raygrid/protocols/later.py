"""The protocols of papers since 2023, one class a source. Numbers: the code named in each card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from raygrid.core.registry import Card
from raygrid.nn.recipes import Recipe
from raygrid.protocols.base import PROTOCOLS, SUPERVISED, TRANSFORMERS, Protocol


@PROTOCOLS.register("cuda")
@dataclass(frozen=True, kw_only=True)
class CudaProtocol(Protocol):
    """CUDA: 100 epochs in batches of 512, rate divided by 10 at 40 and 80, gradients clipped."""

    card = Card(
        paper="Sadasivan et al. 2023 (CUDA), section 5",
        code="vinusankars/Convolution-based-Unlearnability@ff58b1c (final_filter_unlearnable.py)",
        notes="the code has CIFAR-10 and CIFAR-100 alone; how it trained on ImageNet-100 is not "
        "in it. Images are not normalized",
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        SUPERVISED: Recipe(
            epochs=100, batch_size=512, schedule="step", milestones=(40, 80), grad_clip=5.0
        )
    }


@PROTOCOLS.register("pil")
@dataclass(frozen=True, kw_only=True)
class PilProtocol(Protocol):
    """PIL: 30 epochs in batches of 512, cosine to zero, weight decay 1e-4."""

    card = Card(
        paper="Liu, Chen and Zhang 2026 (PIL)",
        code="jinlinll/pil@50a2803 (main.py, trainer.py)",
        notes="`evaluate.py` trains for 100 epochs, `main.py` for 30; that its clean CIFAR-10 "
        "reaches 92 % speaks for 30. `main.py --show_clean_test` trains its clean victim on "
        "images in one order, neither cropped nor mirrored: whether the printed clean numbers are "
        "of that is not known. SVHN is cropped and mirrored as well. Images are not "
        "normalized",
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        SUPERVISED: Recipe(epochs=30, batch_size=512, weight_decay=1e-4)
    }
    augmentations: ClassVar[Mapping[str, str]] = {"svhn": "crop_flip"}


@PROTOCOLS.register("wxl")
@dataclass(frozen=True, kw_only=True)
class Wxl(Protocol):
    """The victim of COIN, ECLIPSE and DUNE: 80 epochs at a constant rate, no weight decay."""

    card = Card(
        paper="Wang et al. 2024 (ECLIPSE), Li et al. 2025 (COIN), Wang et al. 2026 (DUNE)",
        code="wxldragon/DUNE@a35cbb6 and wxldragon/COIN@6577fa8 (train.py)",
        notes="the printed number is the accuracy after the last epoch that 5 divides, which is "
        "the last of 80. Images are not normalized. Its code compresses (JPEG) after crop and "
        "flip, anew in every epoch, where `jpeg` does once before",
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        SUPERVISED: Recipe(epochs=80, weight_decay=0.0, schedule="constant")
    }


@PROTOCOLS.register("op")
@dataclass(frozen=True, kw_only=True)
class OpProtocol(Protocol):
    """The victim of OP: 50 epochs, rate divided by 10 at 25 and 37, weight decay 1e-4."""

    card = Card(
        paper="Sandoval-Segura et al. 2023, What Can We Learn from Unlearnable Datasets?",
        code="psandovalsegura/learn-from-unlearnable@605dea2 (orthogonal_projection_step_2.py)",
        notes="its strong augmentation is the defense `affine_jitter`, its CutMix "
        "`cutmix(box=batch, p=0.5)`. The code has another fall of the rate for ImageNet-100, which "
        "it calls untested and which is not here. Transformers have its Adam; its cosine is laid "
        "out over 50 epochs from the end of the warm-up on, here over the 45 that are left",
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        SUPERVISED: Recipe(
            epochs=50, weight_decay=1e-4, schedule="step", milestones=(25, 37), normalize=True
        )
    }
    by_architecture: ClassVar[Mapping[str, Mapping[str, object]]] = {
        name: {
            "optimizer": "adam",
            "lr": 1e-3,
            "weight_decay": 5e-5,
            "schedule": "warmup_cosine",
            "lr_end": 0.01,
            "warmup_epochs": 5,
        }
        for name in TRANSFORMERS
    }
