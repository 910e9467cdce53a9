"""Yu et al. 2024 (D-VAE): tables 2 and 12, section 4, appendices B and C."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from raygrid.literature.names import METRIC_NAMES
from raygrid.literature.reference import printed_questions
from raygrid.nn.vae import VaeFit, VaeSize
from raygrid.nn.vae.networks import AutoEncoder
from raygrid.reproduce.figure_list import JPEG_QUALITIES
from tests.settings.rules import (
    PrintedRow,
    Rule,
    attack,
    cells,
    dataset,
    defense,
    every,
    recipe,
    words,
)

SETS = ("cifar10", "cifar100", "imagenet100")
LARGE = "its code has 5 steps of 2/255 on its subset of ImageNet, where the text names no set"
COSTS = {
    "train_dvae_twice": "minutes_dvae_training",
    "inference_three_times": "minutes_inference",
    "train_classifier": "minutes_classifier_training",
    "total": "minutes",
}
"""Parts of a trial's cost by what `raygrid evaluate cost` calls them."""
OFFICIAL = {
    "Sizhe-Chen/SEP",
    "dayu11/Availability-Attacks-Create-Shortcuts",
    "cychomatica/One-Pixel-Shotcut",
}


def minutes(row: PrintedRow) -> object:
    """As the number that a job of table 12 asks for and shows beside its own."""
    metric = COSTS[row["setting"]]
    found = {(each.row, each.column): each.value for each in printed_questions("dvae", "12")}
    return found.get((row["item"], metric))


def plan(side: int) -> VaeSize:
    return VaeSize.disentangling(side, 10, "spatial")


def shrinks(side: int) -> float:
    """By how much features are smaller than images."""
    return plan(side).grid / side


def count(part: str, layers: type[nn.Module], norms: type[nn.Module]) -> object:
    """Layers of more than one pixel in a part of the network, where it has such norms."""
    modules: list[Any] = list(getattr(AutoEncoder(plan(32)), part).modules())
    wide = [m for m in modules if isinstance(m, layers) and m.kernel_size != (1, 1)]
    return len(wide) if any(isinstance(m, norms) for m in modules) else None


def heads(row: PrintedRow) -> object:
    network = AutoEncoder(plan(32))
    (found,) = {*network.mean.kernel_size, *network.log_var.kernel_size}
    return found


def second_stage(row: PrintedRow) -> object:
    """How many augmentations an image has after UEraser's turn; UEraser-Lite draws one."""
    first: Any = defense("")(row)
    return getattr(first.during(first.lite_after), "repeats", 1)


def same_as_apbench(row: PrintedRow) -> bool:
    return defense("")(row) == defense("")({**row, "paper": "apbench"})


def networks(row: PrintedRow) -> object:
    """Of attackers and of the victims of the main tables."""
    ours = every(attack("surrogate"), "em", "tap", "rem", "sep")(row)
    theirs = cells(row, "3", "architecture")
    return ours if ours == theirs else (ours, theirs)


def code(row: PrintedRow) -> object:
    return str(attack("card.code")(row)).split(" ")[0].partition("@")[0]


RULES = (
    Rule(r"12/.*", minutes),
    Rule(r"text/imagenet100/classes", dataset("classes")),
    Rule(r"text/(imagenet100|cifar10\+cifar100)/image_size", every(dataset("image_size"))),
    Rule(r"text/training/epochs_cifar10", recipe("epochs")),
    Rule(
        r"text/training/epochs_cifar100_imagenet100",
        every(recipe("epochs", on="{item}"), *SETS[1:]),
    ),
    Rule(r"text/training/optimizer", every(recipe("optimizer", on="{item}"), *SETS)),
    Rule(r"text/training/initial_learning_rate", every(recipe("lr", on="{item}"), *SETS)),
    Rule(
        r"text/training/schedule",
        words(every(recipe("schedule", on="{item}"), *SETS), {"cosine": "cosine annealing"}),
    ),
    Rule(r"text/training/batch_size", every(recipe("batch_size", on="{item}"), *SETS)),
    Rule(
        r"text/training/reported_accuracy",
        words(lambda row: METRIC_NAMES["test_acc"], {"final_acc": "last epoch"}),
    ),
    Rule(r"text/training/surrogate_and_target", networks),
    Rule(r"text/dvae/optimizer", lambda row: VaeFit(plan(32), 1.0, 60).recipe.optimizer),
    Rule(
        r"text/dvae/epochs_cifar10_cifar100", every(defense("epochs", "dvae", "{item}"), *SETS[:2])
    ),
    Rule(r"text/dvae/epochs_imagenet100", defense("epochs", on="imagenet100")),
    Rule(
        r"text/dvae/kld_limit_stage1_cifar", every(defense("limit1", "dvae", "{item}"), *SETS[:2])
    ),
    Rule(
        r"text/dvae/kld_limit_stage2_cifar", every(defense("limit2", "dvae", "{item}"), *SETS[:2])
    ),
    Rule(r"text/dvae/kld_limit_stage1_imagenet100", defense("limit1", on="imagenet100")),
    Rule(r"text/dvae/kld_limit_stage2_imagenet100", defense("limit2", on="imagenet100")),
    Rule(r"text/dvae/downsampling_cifar", lambda row: shrinks(32)),
    Rule(r"text/dvae/downsampling_stage1_imagenet100", lambda row: shrinks(224)),
    Rule(
        r"text/dvae/psnr_(cifar|imagenet100)",
        why="a result, and only `around`",
    ),
    Rule(
        r"text/dvae/encoder",
        lambda row: count("encoder", nn.Conv2d, nn.BatchNorm2d),
        said="{} convolutions with batch norm",
    ),
    Rule(
        r"text/dvae/decoder",
        lambda row: count("decoder", nn.ConvTranspose2d, nn.InstanceNorm2d),
        said="{} convolutions with instance norm",
    ),
    Rule(r"text/dvae/mean_and_sd_heads", heads, said="one convolution each, kernel size {}"),
    Rule(r"text/at/perturbation_linf", every(defense("radius", "at", "{item}"), *SETS)),
    Rule(
        r"text/at/iterations",
        every(defense("steps", "at", "{item}"), *SETS),
        why=LARGE,
        instead={"cifar10": 10, "cifar100": 10, "imagenet100": 5},
    ),
    Rule(
        r"text/at/step_size_linf",
        every(defense("step", "at", "{item}"), *SETS),
        why=LARGE,
        instead={"cifar10": 1.6 / 255, "cifar100": 1.6 / 255, "imagenet100": 2 / 255},
    ),
    Rule(r"text/bdr/bits", defense("bits")),
    Rule(r"text/jpeg/quality", defense("quality")),
    Rule(r"text/aa/repeats_k_first_stage", defense("repeats")),
    Rule(r"text/aa/repeats_k_second_stage", second_stage),
    Rule(r"text/avatar/code", words(same_as_apbench, {"True": "APBench"})),
    Rule(
        r"text/avatar/diffusion_model",
        words(defense("diffusion_data"), {"clean_train": "trained on clean CIFAR-10"}),
    ),
    Rule(
        r"text/(ntga|ar)/source",
        why="raygrid makes the poison; the authors' files can be loaded with the attack `file`",
    ),
    Rule(
        r"text/em\+tap\+rem/source",
        words(every(code), {"fshp971/robust-unlearnable-examples": "official code of REM"}),
    ),
    Rule(r"text/(sep|lsp|ops)/source", words(code, dict.fromkeys(OFFICIAL, "official code"))),
    Rule(r"text/lsp/patch_size", every(attack("patch", "lsp", "{item}"), *SETS)),
    Rule(r"2/(ntga|em|tap|rem|sep)/budget_linf", attack("budget.value")),
    Rule(
        r"2/lsp/budget_l2",
        attack("budget.value"),
        why="the paper prints 1.0 and says that it ran the official code, which has 6/255 in each "
        "of 3,072 values",
        instead=6 / 255 * math.sqrt(3072),
    ),
    Rule(r"2/ar/budget_l2|2/ops/budget_l0", attack("budget.value")),
    Rule(
        r"text/.*/l2_of_(true|predicted)_perturbation",
        why="measured by the authors, `about` and `around`; no parameter of anything",
    ),
    Rule(r"text/jpeg/qualities_figure_2b", lambda row: JPEG_QUALITIES),
)
