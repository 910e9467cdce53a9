"""The protocols of the papers on contrastive victims: TP and AUE, one class a source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from raygrid.core.literals import Scalar
from raygrid.core.registry import Card
from raygrid.nn.recipes import PROBING, Probing, Recipe
from raygrid.protocols.base import PROTOCOLS, SUPERVISED, Protocol


def contrastive(epochs: int, lr: float) -> Recipe:
    """The pre-training that all contrastive protocols share; only epochs and rate differ."""
    return Recipe(
        epochs=epochs,
        batch_size=512,
        lr=lr,
        weight_decay=1e-4,
        lr_end=1e-3,
        warmup_epochs=10,
        warmup_lr=0.01,
        drop_last=True,
    )


def _tp_recipe(epochs: int, lr: float) -> Recipe:
    """The code of CP and TP normalizes, and raises the rate with every step of the warm-up."""
    return contrastive(epochs, lr).with_(normalize=True, stepwise="warmup")


def _tp(epochs: int) -> dict[str, Recipe]:
    """The contrastive learners of Liu et al. on CIFAR-10 and CIFAR-100."""
    rates = {"supcl": 0.5, "simclr": 0.5, "byol": 1.0, "moco": 0.3, "simsiam": 0.5}
    return {name: _tp_recipe(epochs, lr) for name, lr in rates.items()}


def _tp_64(epochs: int) -> dict[str, Recipe]:
    """The same on images of 64 pixels (Tiny ImageNet, MiniImageNet)."""
    rates = {"supcl": 0.15, "simclr": 0.15, "byol": 0.3, "moco": 0.3, "simsiam": 0.1}
    return {name: _tp_recipe(epochs, lr) for name, lr in rates.items()}


@PROTOCOLS.register("tp")
@dataclass(frozen=True, kw_only=True)
class TpProtocol(Protocol):
    """Liu et al.: 100 supervised epochs, 1,000 contrastive ones, linear probe on poisoned data."""

    card = Card(
        paper="Liu et al. (Transferable Availability Poisoning), section 4.1 and appendix A.3",
        code="TrustMLRG/TransPoison@2d08a9c",
        notes="contrastive numbers are the best test accuracy over the epochs of the linear probe, "
        "as its code prints them (`probe_peak`). The cosine of contrastive rates counts epochs "
        "from 0, in the code from 1: at most 0.16 % of the first rate",
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        SUPERVISED: Recipe(epochs=100, schedule="step", milestones=(60, 75, 90)),
        **_tp(1000),
    }
    recipes_64: ClassVar[Mapping[str, Recipe]] = _tp_64(1000)
    probe: ClassVar[Probing] = replace(PROBING, printed="peak")


@PROTOCOLS.register("tp_grid")
@dataclass(frozen=True, kw_only=True)
class TpGrid(TpProtocol):
    """`tp` with a fifth of the contrastive epochs, for grids that nobody could wait for."""

    card = Card(
        paper="Liu et al. (Transferable Availability Poisoning), appendix A.3; epochs are ours",
        notes="200 contrastive epochs instead of 1,000; its numbers stand in no paper's table",
    )
    tier: ClassVar[str] = "grid"
    recipes: ClassVar[Mapping[str, Recipe]] = {**TpProtocol.recipes, **_tp(200)}
    recipes_64: ClassVar[Mapping[str, Recipe]] = _tp_64(200)


_AUE_RATES = {"simclr": 0.5, "byol": 1.0, "moco": 0.3, "simsiam": 0.1}


@PROTOCOLS.register("aue")
@dataclass(frozen=True, kw_only=True)
class AueProtocol(Protocol):
    """Wang et al. 2024: unscaled losses, wider heads, smaller crops, plain probe."""

    card = Card(
        paper="Wang et al. 2024 (AUE and AAP), appendix",
        code="EhanW/AUE-AAP@64fb25f",
        notes="no SupCL and no input normalization there; BYOL's loss is 4 times ours; the "
        "probe's number is the last (`probe_final`). Rates rise "
        "to their full height over 10 epochs and fall along a cosine over the rest, in version 1 "
        "they did not reach it. No image is "
        "left out of an epoch, and BYOL embeds both views as one batch; version 2 did neither",
    )
    version: ClassVar[int] = 3
    recipes: ClassVar[Mapping[str, Recipe]] = {
        SUPERVISED: Recipe(
            epochs=200,
            lr=0.5,
            weight_decay=1e-4,
            schedule="warmup_cosine",
            lr_end=2e-6,
            warmup_epochs=10,
        ),
        **{
            name: contrastive(1000, lr).with_(
                schedule="warmup_cosine", lr_end=1e-6 / lr, warmup_lr=0.0, drop_last=False
            )
            for name, lr in _AUE_RATES.items()
        },
    }
    settings: ClassVar[Mapping[str, Mapping[str, Scalar]]] = {
        "simclr": {
            "crop_min": 0.08,
            "loss_scale": "none",
            "hidden": 2048,
            "batch_norm": True,
        },
        "moco": {"crop_min": 0.08, "loss_scale": "none", "hidden": 2048},
        "byol": {
            "crop_min": 0.08,
            "hidden": 2048,
            "output": 128,
            "ema_updates": 1,
            "factor": 4.0,
            "joint": True,
        },
        "simsiam": {"crop_min": 0.08, "affine": True},
    }
    probe: ClassVar[Probing] = replace(PROBING, passes=0)
    probe_lr: ClassVar[Mapping[str, float]] = {"simsiam": 5.0}
