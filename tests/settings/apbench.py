"""Qin et al. 2024 (APBench): tables 1, 2, 12 to 15 and 18, sections 4.1 to 4.4."""

from __future__ import annotations

from typing import Any

from raygrid.attacks import ATTACKS
from raygrid.attacks.common.em_rounds import EM_RECIPE
from raygrid.core.spec import TrialSpec
from raygrid.datasets import DATASETS
from raygrid.datasets.svhn import SVHN_SITE
from raygrid.defenses import DEFENSES
from raygrid.nn.augment.ueraser import SHUFFLE_PROBABILITY
from raygrid.nn.diffusion import NOISE_STEPS
from raygrid.reports.analysis.questions import PGD20
from raygrid.reproduce.figure_list import PARTIAL_RATIOS
from raygrid.trials.resolve import resolve
from tests.settings.rules import (
    PrintedRow,
    Rule,
    attack,
    cells,
    dataset,
    defense,
    every,
    recipe,
    repository,
    wise,
    words,
)

EPOCHS = "table 15 contradicts section 4.1, which raygrid follows; the code trains 200 throughout"
ALL = ("dc", "ntga", "em", "hypo", "tap", "rem", "lsp", "ar", "ops", "ucl", "tue")
SURROGATE = ("em", "hypo", "tap", "rem", "ucl", "tue")
"""Those that differentiate a network; DC has its own VGG-11, NTGA a kernel."""


AUGMENTATIONS = {
    "crop_flip": "random crop, random horizontal flip",
    "rrc_flip_jitter": "random crop, horizontal flip, color jitter",
}


def augmented(row: PrintedRow) -> str:
    """How victims of the protocol see the training images."""
    spec = f"{row['item']}/clean/standard/resnet18/supervised/apbench/0"
    return resolve(spec, None).augmentation


def mode(row: PrintedRow) -> str:
    """Noise that is made for contrastive learners has one of their frameworks."""
    return "unsupervised" if hasattr(attack("")(row), "framework") else "supervised"


def place(row: PrintedRow) -> str:
    """Where a defense acts."""
    found = DEFENSES.make(row["item"])
    if found.acts("purify") and not found.acts("augment"):
        return "preprocessing"
    return "training" if found.acts("loss") or found.derived else "augmentation"


def price(row: PrintedRow) -> str:
    found = DEFENSES.make(row["item"])
    return "high" if found.cost > 2 or found.purify_cost > 2 else "low"


def rounds(row: PrintedRow) -> Any:
    """Steps, error that ends the rounds, most rounds."""
    return attack("plan")(row)


def networks(row: PrintedRow) -> object:
    """Of attackers and victims."""
    ours = every(attack("surrogate"), *SURROGATE)(row)
    theirs = cells(row, "3", "architecture")
    return ours if ours == theirs else (ours, theirs)


def site(row: PrintedRow) -> str:
    """The page of a data set, if raygrid fetches its files from there."""
    kind: Any = DATASETS[row["item"]]
    url = getattr(kind, "url", SVHN_SITE)
    return row["value"] if url.startswith(row["value"].removesuffix("cifar.html")) else url


RULES = (
    Rule(r"1/.*/budget_norm", attack("budget.norm")),
    Rule(r"1/(?!lsp/).*/budget", attack("budget.value")),
    Rule(r"1/lsp/budget|13/lsp/budget_l2", attack("budget.value"), said="{:.2f}"),
    Rule(r"1/.*/mode", mode),
    Rule(r"2/(?!ueraser_lite/).*/type", place),
    Rule(
        r"2/ueraser_lite/type",
        place,
        why="it augments every batch, for all learners; the paper files it beside UEraser-Max",
        instead="augmentation",
    ),
    Rule(r"2/.*/time_cost", price),
    Rule(r"12/.*/classes", dataset("classes")),
    Rule(r"12/.*/train_size", dataset("train_size")),
    Rule(r"12/.*/test_size", dataset("test_size")),
    Rule(r"12/.*/image_size", dataset("image_size")),
    Rule(r"13/.*/budget_linf", attack("budget.value")),
    Rule(
        r"13/dc/pretrained_model",
        why="APBench applied the authors' generator, trained at 0.032, at 8/255; raygrid trains "
        "one at its budget",
    ),
    Rule(r"13/ntga/poisoned_set", attack("kernel"), said="official CIFAR-10 {} (best)"),
    Rule(r"13/(em|rem|ops)/perturbation_type", wise),
    Rule(r"13/(em|rem)/stopping_error_rate", lambda row: rounds(row)[1]),
    Rule(r"13/(em|rem)/learning_rate", lambda row: EM_RECIPE.lr),
    Rule(r"13/(em|rem)/optimizer", lambda row: EM_RECIPE.optimizer),
    Rule(r"13/(em|rem)/batch_size", attack("batch_size")),
    Rule(r"13/hypo/step_size_linf", lambda row: attack("step")(row) * 8 / 255),
    Rule(r"13/rem/adversarial_training_linf", lambda row: attack("up_radius")(row) * 8 / 255),
    Rule(r"13/lsp/patch_size", attack("patch")),
    Rule(r"13/lsp/patch_size_imagenet", attack("patch", on="imagenet100")),
    Rule(r"13/(ar|ops)/budget_l[02]", attack("budget.value")),
    Rule(r"13/(ar|ops)/hyperparameters", repository(attack("card.code"), "defaults of GitHub {}")),
    Rule(r"13/(ucl|tue)/poisoned_set", repository(attack("card.code"), "GitHub {}")),
    Rule(r"14/.*/optimizer", every(recipe("optimizer", on="{item}"))),
    Rule(r"14/.*/momentum", every(recipe("momentum", on="{item}"))),
    Rule(r"14/.*/weight_decay", every(recipe("weight_decay", on="{item}"))),
    Rule(r"14/.*/batch_size", every(recipe("batch_size", on="{item}"))),
    Rule(r"14/.*/initial_learning_rate", every(recipe("lr", on="{item}"))),
    Rule(r"14/.*/standard_augmentation", words(every(augmented), AUGMENTATIONS)),
    Rule(
        r"15/standard/epochs_cifar10_cifar100",
        every(recipe("epochs", on="{item}"), "cifar10", "cifar100"),
        why=EPOCHS,
        instead=200,
    ),
    Rule(r"15/standard/epochs_svhn", recipe("epochs", on="svhn"), why=EPOCHS, instead=100),
    Rule(
        r"15/standard/epochs_imagenet", recipe("epochs", on="imagenet100"), why=EPOCHS, instead=200
    ),
    Rule(r"15/(?!standard/).*/epochs", recipe("epochs", defense="{item}")),
    Rule(r"15/at/perturbation_linf", defense("radius")),
    Rule(r"15/at/step_size_linf", defense("step")),
    Rule(r"15/at/pgd_steps", defense("steps")),
    Rule(r"15/gaussian/kernel_size", defense("kernel")),
    Rule(r"15/gaussian/standard_deviation", defense("sigma")),
    Rule(r"15/jpeg/quality", defense("quality")),
    Rule(r"15/bdr/bits", defense("bits")),
    Rule(r"15/ueraser_(lite|max)/plasma_brightness_contrast_p", defense("p")),
    Rule(r"15/ueraser_(lite|max)/channel_shuffle_p", lambda row: SHUFFLE_PROBABILITY),
    Rule(r"15/ueraser_max/repeats_k", defense("repeats")),
    Rule(r"15/avatar/sampler", words(defense("solver"), {"euler": "Score-SDE"})),
    Rule(r"15/avatar/starting_step", defense("steps")),
    Rule(r"15/avatar/total_steps", lambda row: NOISE_STEPS),
    Rule(
        r"15/avatar/pretrained_model",
        defense("checkpoint"),
        why="raygrid ships no weights: it fits a predictor to the same clean images, or loads "
        "score-SDE's file by `checkpoint`",
        instead="",
    ),
    Rule(
        r"18/.*/licence",
        why="the license of code or data of others, none of which is in raygrid",
    ),
    Rule(r"18/pytorch/source", why="no source of a method: the framework that raygrid runs on"),
    Rule(
        r"18/(dc|ntga|em|hypo|tap|rem|lsp|ar|ops|tue)/source",
        repository(lambda row: ATTACKS[row["item"]].card.code),
    ),
    Rule(r"18/ucl/source", repository(attack("card.code"))),
    Rule(r"18/iss/source", repository(defense("card.code"))),
    Rule(
        r"18/diffpure/source",
        why="APBench's AVATAR runs DiffPure's code; raygrid has code of its own",
    ),
    Rule(r"18/(cifar10|cifar100|svhn)/source", site),
    Rule(
        r"18/imagenet100/source",
        why="which 100 classes these are is no fact of raygrid: it takes those in `classes.txt` "
        "beside the images, by default the first 100",
    ),
    Rule(
        r"text/training/epochs_cifar10_cifar100_imagenet100",
        every(recipe("epochs", on="{item}"), "cifar10", "cifar100", "imagenet100"),
    ),
    Rule(r"text/training/epochs_svhn", recipe("epochs", on="svhn")),
    Rule(
        r"text/training/learning_rate",
        every(recipe("lr", on="{item}"), "cifar10", "cifar100", "svhn", "imagenet100"),
    ),
    Rule(
        r"text/training/momentum",
        every(recipe("momentum", on="{item}"), "cifar10", "cifar100", "svhn", "imagenet100"),
    ),
    Rule(r"text/unsupervised/epochs", every(recipe("epochs", "{item}"), "simclr", "moco")),
    Rule(r"text/(simclr|moco)/learning_rate", recipe("lr", "{item}")),
    Rule(r"text/all attacks/perturbation_type", every(wise, *ALL)),
    Rule(r"text/all attacks/surrogate_and_target", networks),
    Rule(r"text/all attacks/poisoning_rate", lambda row: TrialSpec.poison_ratio),
    Rule(r"text/partial poisoning/rates", lambda row: PARTIAL_RATIOS),
    Rule(r"text/pgd evaluation/budget_linf", lambda row: PGD20.radius),
    Rule(r"text/pgd evaluation/steps", lambda row: PGD20.steps),
    Rule(r"text/pgd evaluation/step_size_linf", lambda row: PGD20.step),
    Rule(r"text/spread/runs", why="a job has as many seeds as somebody asks for: `--seeds 3`"),
)
