"""The protocols of the seed papers, one class a source; `contrastive.py` has those of TP and AUE.

Numbers: the papers named in each card.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from raygrid.core.registry import Card
from raygrid.nn.recipes import PROBING, Probing, Recipe
from raygrid.protocols.base import PROTOCOLS, SUPERVISED, TRANSFORMERS, Protocol
from raygrid.protocols.contrastive import contrastive


@PROTOCOLS.register("apbench")
@dataclass(frozen=True, kw_only=True)
class ApBench(Protocol):
    """Qin et al. 2024: 200 epochs, rate halved at 100."""

    card = Card(
        paper="Qin et al. 2024 (APBench), sections 4.1 and B, tables 12, 14, 15",
        code="lafeat/apbench@9a6fb91",
        notes="batch 128 as printed (the code's default is 256); shuffled (the code is not). Its "
        "contrastive numbers are the best over the probe's epochs (`probe_peak`). Transformers "
        "have the rule of the others, as in the code, not its rate of 0.1. The code's probe stops "
        "a 500-epoch cosine after 100 epochs; here its rate is constant. The cosine of contrastive "
        "rates counts epochs from 0, in the code from 1: at most 0.32 %. ImageNet-100 with random "
        "crop, flip and color jitter as printed; how strong is the code's, and so is UEraser's "
        "length there. Standard training has the 200 epochs of section 4.1 (SVHN 100), where table "
        "15 prints 50, 40 and 100",
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        SUPERVISED: Recipe(
            epochs=200, schedule="step", gamma=0.5, milestones=(100, 200, 300), drop_last=True
        ),
        "simclr": contrastive(500, 0.5).with_(warmup_epochs=0),
        "moco": contrastive(500, 0.3).with_(warmup_epochs=0),
    }
    by_dataset: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "svhn": {"epochs": 100},
        "imagenet100": {"batch_size": 256, "schedule": "cosine"},
    }
    by_defense: ClassVar[Mapping[str, Mapping[str, object]]] = {"ueraser_max": {"epochs": 300}}
    on_dataset: ClassVar[Mapping[tuple[str, str], Mapping[str, object]]] = {
        ("imagenet100", "ueraser_max"): {"epochs": 200}
    }
    by_architecture: ClassVar[Mapping[str, Mapping[str, object]]] = TRANSFORMERS
    augmentations: ClassVar[Mapping[str, str]] = {"imagenet100": "rrc_flip_jitter"}
    probe: ClassVar[Probing] = Probing(
        PROBING.recipe.with_(batch_size=128, lr=0.5, schedule="constant"), passes=10, printed="peak"
    )
    probe_lr: ClassVar[Mapping[str, float]] = {"moco": 0.3}
    probe_data: Literal["poisoned", "clean"] = "clean"


@PROTOCOLS.register("apbench_grid")
@dataclass(frozen=True, kw_only=True)
class ApBenchGrid(ApBench):
    """`apbench` with 200 contrastive epochs, for grids that nobody could wait for."""

    card = Card(
        paper="Qin et al. 2024 (APBench), section B; epochs are ours",
        notes="200 contrastive epochs instead of 500; its numbers stand in no paper's table",
    )
    tier: ClassVar[str] = "grid"
    recipes: ClassVar[Mapping[str, Recipe]] = {
        **ApBench.recipes,
        "simclr": ApBench.recipes["simclr"].with_(epochs=200),
        "moco": ApBench.recipes["moco"].with_(epochs=200),
    }


@PROTOCOLS.register("learned_faster")
@dataclass(frozen=True, kw_only=True)
class LearnedFaster(Protocol):
    """Sandoval-Segura et al. 2022: 100 epochs, rate divided by 10 at 50; peak and final."""

    card = Card(paper="Sandoval-Segura et al. 2022, section 3")
    recipes: ClassVar[Mapping[str, Recipe]] = {
        SUPERVISED: Recipe(epochs=100, schedule="step", milestones=(50,))
    }


@PROTOCOLS.register("apbench_repo")
@dataclass(frozen=True, kw_only=True)
class ApBenchRepo(Protocol):
    """APBench as its code runs by default: batches of 256 in a fixed order."""

    card = Card(
        paper="Qin et al. 2024 (APBench)",
        code="lafeat/apbench@9a6fb91",
        notes="the code reads images in the order of a directory listing, here one order is drawn. "
        "ImageNet subsets are shuffled there, and poisoned images, which lie at 224 pixels, only "
        "flipped and jittered; its clean run crops them too, here it is treated as the poisoned. "
        "UEraser-Max runs as long as the rest",
    )
    version: ClassVar[int] = 2
    recipes: ClassVar[Mapping[str, Recipe]] = {
        SUPERVISED: Recipe(
            epochs=200,
            batch_size=256,
            schedule="step",
            gamma=0.5,
            milestones=(100, 200, 300),
            shuffle=False,
            drop_last=True,
        )
    }
    by_dataset: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "imagenet100": {"schedule": "cosine", "shuffle": True}
    }
    by_architecture: ClassVar[Mapping[str, Mapping[str, object]]] = TRANSFORMERS
    augmentations: ClassVar[Mapping[str, str]] = {"imagenet100": "flip_jitter"}


@PROTOCOLS.register("iss")
@dataclass(frozen=True, kw_only=True)
class IssProtocol(Protocol):
    """ISS: 60 epochs, cosine to zero; 100 for adversarial training, 200 for transformers."""

    card = Card(
        paper="Liu et al. 2023 (ISS), section 4",
        code="liuzrcc/ImageShortcutSqueezing",
        notes="its code logs the best epoch beside the last, and trains transformers by SGD at 0.1 "
        "as all else; here by Adam",
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {SUPERVISED: Recipe(epochs=60)}
    by_defense: ClassVar[Mapping[str, Mapping[str, object]]] = {"at": {"epochs": 100}}
    by_architecture: ClassVar[Mapping[str, Mapping[str, object]]] = {
        name: {**changes, "epochs": 200} for name, changes in Protocol.by_architecture.items()
    }


@PROTOCOLS.register("avatar")
@dataclass(frozen=True, kw_only=True)
class AvatarProtocol(Protocol):
    """AVATAR: 120 epochs, rate divided by 10 at 80 and 100, gradients clipped at 5."""

    card = Card(
        paper="Dolatabadi et al. 2023 (AVATAR)",
        code="hmdolatabadi/AVATAR",
        notes="the paper reports the best epoch: compare its numbers with the peak. Its code crops "
        "and flips SVHN too, and jitters ImageNet-100 by a tenth",
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        SUPERVISED: Recipe(epochs=120, schedule="step", milestones=(80, 100), grad_clip=5.0)
    }
    augmentations: ClassVar[Mapping[str, str]] = {
        "svhn": "crop_flip",
        "imagenet100": "rrc_flip_jitter_weak",
    }


@PROTOCOLS.register("dvae")
@dataclass(frozen=True, kw_only=True)
class DVaeProtocol(Protocol):
    """D-VAE: 60 epochs (CIFAR-10) or 100, cosine to zero, gradients clipped at 5."""

    card = Card(
        paper="Yu et al. 2024 (D-VAE), section 5 and appendix",
        code="yuyi-sd/D-VAE",
        notes="what deviates for a network or a defense stands in the code's configurations. Those "
        "of CIFAR-100 have a weight decay of 5e-5 for larger networks, as on ImageNet-100; here "
        "they are as on CIFAR-10, and transformers, there by SGD at 0.1, have Adam",
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        SUPERVISED: Recipe(epochs=60, grad_clip=5.0, drop_last=True)
    }
    by_dataset: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "cifar100": {"epochs": 100},
        "imagenet100": {"epochs": 100},
    }
    by_architecture: ClassVar[Mapping[str, Mapping[str, object]]] = {
        **Protocol.by_architecture,
        "densenet121": {"batch_size": 96},
    }
    by_defense: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "at": {"epochs": 100, "schedule": "step", "milestones": (75, 90)},
        "ueraser_max": {"epochs": 200, "lr": 0.01, "schedule": "constant"},
    }
    on_dataset: ClassVar[Mapping[tuple[str, str], Mapping[str, object]]] = {
        ("cifar100", "ueraser_max"): {"epochs": 300},
        ("imagenet100", "ueraser_max"): {"epochs": 300},
        ("imagenet100", "resnet50"): {"weight_decay": 5e-5},
        ("imagenet100", "densenet121"): {"weight_decay": 5e-5},
    }
