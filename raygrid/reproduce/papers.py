"""The papers whose tables and figures are reproduced: what each table holds and how it is shown.

Data alone, so that the command line can list it at once. The numbers themselves, and the trials
behind them, are in `raygrid.literature`; the figures are listed in `figure_list.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Scale = Literal["smoke", "quick", "screen", "small", "grid", "paper"]

EXTRA_NOTE = "AVATAR comes with an extra: `uv run --extra avatar raygrid reproduce ...`."
DIGITS_NOTE = (
    "Scale quick: stand-ins on a small dataset and a small network; attacks that can be shortened "
    "are, at twice the printed budget, others are at the printed one; in brackets what the paper "
    "printed for the real thing."
)
OTHER_DIGITS_NOTE = (
    "Scale quick: stand-ins on digits of other classes, small networks and short attacks; in "
    "brackets what the paper printed for the real thing."
)


@dataclass(frozen=True)
class Paper:
    """A paper as `raygrid reproduce` offers it.

    source: authors, year and subject. tables: by number what is in them, in the order of the
    paper. kinds: of `raygrid table`, to show the results in; special: the same for single tables.
    notes: for the help text. quick: what the stand-ins of scale quick are. setups: whether trials
    follow drawn set-ups of targets, which official ones can replace. main: the table that is meant
    where none is named; empty: one has to be.
    """

    source: str
    tables: Mapping[str, str]
    kinds: tuple[str, ...]
    special: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    quick: str = DIGITS_NOTE
    setups: bool = False
    main: str = ""

    def kinds_of(self, table: str) -> tuple[str, ...]:
        """How the results of a table are shown."""
        return self.special.get(table, self.kinds)


PAPERS: Mapping[str, Paper] = {
    "apbench": Paper(
        source="Qin et al. 2024, APBench: availability attacks and defenses",
        tables={
            "3": "CIFAR-10, ResNet-18: nine attacks, thirteen defenses",
            "4": "the same for ViT-small",
            "5": "CIFAR-100, SVHN, ImageNet-100 (`--dataset svhn` for one of them)",
            "6": "larger budgets",
            "7": "six architectures",
            "8": "EM made through a defense",
            "9": "REM made through a defense",
            "10": "contrastive learners with poisons made for the same one, probe on clean images",
            "11": "PGD-20 on the trained victims, white-box and black-box",
            "12": "clean training",
            "16": "table 3 with its spread, training-time defenses",
            "17": "table 3 with its spread, filters, UEraser, AVATAR and adversarial training",
        },
        kinds=("defense", "transfer", "budget"),
        notes=(EXTRA_NOTE,),
    ),
    "learned_faster": Paper(
        source="Sandoval-Segura et al. 2022: poisons that are learned faster",
        tables={
            "1": "25 poisons, highest and last accuracy of a ResNet-18",
            "2": "ten of them again, and how often clean victims of four architectures get them "
            "wrong",
        },
        kinds=("peak",),
        notes=(
            "Whether the accuracy goes with that, or with PSNR, is drawn of the trials of table 2 "
            "by `raygrid figure\ntransfer-peak | transfer-final TRIALS --victims CLEAN --file F` "
            "and `... psnr-final`.",
        ),
    ),
    "dvae": Paper(
        source="Yu et al. 2024, D-VAE: purification by disentangling",
        tables={
            "1": "what D-VAE finds in a poison, put on clean images; how large both are",
            "2": "CIFAR-10: eight attacks, seven defenses, D-VAE on three more architectures",
            "3": "CIFAR-100",
            "4": "ImageNet subset",
            "5": "larger budgets",
            "6": "D-VAE without one of its stages",
            "7": "detection of poisoned images; growing a poison, and how large what was grown is",
            "8": "partial poisoning",
            "9": "adversarial augmentation at its best epoch",
            "10": "CIFAR-100: the members of the best of three filters",
            "11": "ImageNet subset: the members of the best of three filters",
            "12": "minutes of each step",
            "13": "JPEG qualities, accuracy and PSNR (by image, and of the mean error)",
        },
        kinds=("defense", "transfer", "ratio", "budget", "detection"),
        notes=(EXTRA_NOTE,),
    ),
    "just_how_toxic": Paper(
        source="Schwarzschild et al. 2021, Just How Toxic: targeted poisoning",
        tables={
            "2": "every attack in its authors' setting",
            "3": "the benchmark: four cells, white-box, black-box and from scratch",
            "text": "the changes to table 2 that the text prints",
            "optimizer": "Adam and SGD",
            "augmentation": "none, crop and flip",
            "architecture": "six victims, crafted on the victim's own network where table 2 is",
            "black_box": "the same poisons for victims of other architectures",
            "epsilon": "8, 16, 25.5 levels",
            "disjoint": "ResNet-18 extractors of other classes",
            "size": "5 to 500 poisons at a fixed share",
            "pairs": "any classes, a fixed pair",
            "flip": "the target mirrored",
            "patch": "3, 5, 8 pixels",
        },
        kinds=("success",),
        notes=(
            "Tables by name start from the settings of table 2, one thing changed at a time. "
            "Every attack comes\nwith its clean control. `--setups FOLDER` takes the official "
            "set-ups (the benchmark's checkout, or\nthe same as JSON); without it they are drawn "
            "by the same rules. `--seeds`: numbers of set-ups, from 0.",
        ),
        quick=OTHER_DIGITS_NOTE,
        setups=True,
    ),
    "transferable": Paper(
        source="Liu et al., TP: poisons that transfer between learners",
        tables={
            "1": "CIFAR-10: six learners and their worst case",
            "2": "CIFAR-100: six learners and their worst case",
            "3": "TinyImageNet and MiniImageNet: six learners and their worst case",
            "4": "weights of alignment and uniformity",
            "5": "noise steps in each half",
            "6": "victims of other architectures",
            "7": "two models, TAP-based, and noises that are added up (HF, CC)",
            "8": "defenses, supervised and SimCLR",
            "10": "budgets",
        },
        kinds=("worst-learner",),
        special={"8": ("defense",)},
    ),
    "cuda": Paper(
        source="Sadasivan et al. 2023, CUDA: convolution-based unlearnable datasets",
        tables={
            "2": "three datasets, clean and poisoned",
            "3": "adversarial training of other architectures",
            "4": "adversarial training at three radii",
            "5": "partial poisoning",
            "text": "augmentations that the text prints",
        },
        kinds=("defense", "transfer"),
        special={"5": ("ratio",)},
        main="2",
    ),
    "pil": Paper(
        source="Liu, Chen and Zhang 2026, PIL: perturbation-induced linearization",
        tables={
            "main": "four datasets, five architectures, clean and poisoned",
            "augmentation": "four augmentations, with TAP and SEP",
        },
        kinds=("defense", "transfer"),
        main="main",
    ),
    "dune": Paper(
        source="Wang et al. 2026, DUNE: dual-branch robust unlearnable examples",
        tables={"main": "CIFAR-10, ResNet-18: five attacks, seven defenses and none"},
        kinds=("defense", "transfer"),
        notes=(
            EXTRA_NOTE.replace("AVATAR", "ECLIPSE"),
            "DUNE exceeds 8/255 there: `raygrid run` has `dune(budget=8/255)` for the row that is "
            "held to it.",
        ),
        main="main",
    ),
}
"""By the name that the reference has for a paper."""
