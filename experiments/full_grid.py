"""The main grid: attack, defense, architecture, poison ratio, budget, learner; printed beside it.

    python experiments/full_grid.py                      quick: minutes, embedded dataset
    ray up cluster.yaml && python experiments/full_grid.py      small, on that cluster
    python experiments/full_grid.py --scale screen       CIFAR-10, minutes of a CPU core a victim
    python experiments/full_grid.py --scale small        CIFAR-10, a GPU
    python experiments/full_grid.py --scale paper        CIFAR-10 at the papers' length, a cluster

Without `--scale` it is `small` where a cluster is named or up, else `quick`, with a GPU or not.
Any axis can be given, e.g. `--attacks clean lsp --seeds 0 1 2`. Run it again to fill gaps.
"""

import sys

from raygrid.cli.run import experiment_main
from raygrid.core.spec import Part
from raygrid.engine.grid import Grid
from raygrid.reproduce.screening import screened_attack

QUICK_ATTACKS = (
    "clean",
    "lsp(budget=l2:3.48)",
    "regions(n=16, budget=16/255)",
    "em(batch_size=128, budget=16/255, max_rounds=4, step=0.5, steps=2, surrogate=small_cnn)",
    "tap(batch_size=128, budget=16/255, step=0.2, steps=12, surrogate=small_cnn, "
    "surrogate_epochs=6)",
)
"""Small surrogates, few steps, twice the papers' budgets: 32-pixel digits are easy to learn."""

ATTACKS = ("clean", "em", "rem", "tap", "lsp", "ar", "ops", "regions(n=16)")
DEFENSES = (
    "none",
    "standard",
    "cutout",
    "cutmix",
    "mixup",
    "bdr",
    "grayscale",
    "jpeg",
    "gaussian",
    "early_stopping",
    "at",
)
LEARNERS = ("supervised", "supcl", "simclr", "byol", "moco", "simsiam")
RATIOS = (0.2, 0.4, 0.6, 0.8)
BUDGETS = ("0.5x", "1x", "2x")

SYNTHETIC = ("lsp", "ar", "ops", "regions(n=16)", "regions(n=1024)", "low_frequency")
"""They need no network: these poisons are the printed ones."""
REGIONS = tuple(f"regions(n={n})" for n in (1, 2, 4, 64, 128))
"""The other rows of the printed table of `regions`, the weakest poisons among them."""
LARGER = ("lsp(budget=l2:1.74)", "ar(budget=l2:1.5)")
"""The larger budgets that APBench prints."""
SCREEN_SURROGATE = tuple(
    str(screened_attack(Part.parse(attack)))
    for attack in ("em(mode=class)", "em", "rem", "tap", "pgd", "hypo")
)
"""Poisons of the fast network, at most an hour of a core each: other ones than the printed."""
LATER = (
    "cuda",
    "pil",
    *(str(screened_attack(Part.parse(attack))) for attack in ("sem", "dune", "dune(budget=8/255)")),
)
"""Attacks of later papers: the first two exactly theirs, the others with the fast network."""
CHEAP = (
    "standard",
    "grayscale",
    "jpeg",
    "bdr",
    "none",
    "cutout",
    "gaussian",
    "cutmix",
    "mixup",
    "early_stopping",
)
"""Defenses that cost no more than plain training, the most telling first."""
DEAR = ("ueraser_lite", "ueraser_max", "at")
LATER_DEFENSES = ("op", "coin", "eclipse(size=tiny, stride=4, updates=4000)")
"""Of later papers; the noise predictor of the last is a small one."""
QUALITIES = tuple(f"jpeg(quality={quality})" for quality in (30, 50, 70))
"""Beside the 10 of `jpeg`, as D-VAE prints them."""
SCREEN = {
    "datasets": ("cifar10",),
    "architectures": ("small_airbench",),
    "protocols": ("fast(rung=minutes)",),
}
RESNET18 = {"architectures": ("resnet18",), "protocols": ("fast(epochs=8, rung=resnet18)",)}
"""The papers' network, on a core for a third of the epochs of its rung: for a poison whose plain
cell is far from its printed one."""

SCALES = {
    "quick": (
        Grid(attacks=QUICK_ATTACKS, defenses=("standard", "grayscale", "jpeg", "early_stopping")),
        Grid(attacks=QUICK_ATTACKS, architectures=("small_resnet",)),
        Grid(attacks=QUICK_ATTACKS[:4], learners=("simclr",)),
        Grid(attacks=(QUICK_ATTACKS[1], "withheld"), poison_ratios=(0.5,)),
        Grid(attacks=("regions(n=16)",), budgets=("8/255", "32/255")),
    ),
    "screen": (
        Grid(**SCREEN, attacks=("clean", *SYNTHETIC), defenses=CHEAP),
        Grid(**SCREEN, attacks=("clean", *SYNTHETIC), defenses=CHEAP, seeds=(1,)),
        Grid(**SCREEN, attacks=("lsp", "ops", "cuda", "withheld"), poison_ratios=RATIOS),
        Grid(**SCREEN, attacks=("lsp", "regions(n=16)", "low_frequency"), budgets=BUDGETS),
        Grid(**SCREEN, attacks=REGIONS),
        Grid(**SCREEN, attacks=LARGER, defenses=("standard", "grayscale", "jpeg")),
        Grid(**SCREEN, attacks=SYNTHETIC[:3], defenses=QUALITIES),
        Grid(
            **(SCREEN | {"architectures": ("small_resnet", "small_vgg", "small_mobilenet")}),
            attacks=("clean", *SYNTHETIC),
        ),
        Grid(
            **(SCREEN | {"protocols": ("quick",)}),
            attacks=("clean", "lsp", "ops", "regions(n=16)"),
            learners=("simclr",),
        ),
        Grid(**SCREEN, attacks=SCREEN_SURROGATE, defenses=CHEAP),
        Grid(**SCREEN, attacks=LATER[:2], defenses=("none", "cutout", "cutmix", "mixup")),
        *(
            Grid(**SCREEN, attacks=attacks, defenses=("iss", *more, *LATER_DEFENSES), seeds=seeds)
            for seeds in ((0,), (1,))
            for attacks, more in ((LATER, CHEAP[:4]), (("clean", *SYNTHETIC), ()))
        ),
        Grid(**SCREEN, attacks=("clean", *SYNTHETIC, *LATER, *SCREEN_SURROGATE), defenses=DEAR),
        Grid(**(SCREEN | RESNET18), attacks=("ops",)),
    ),
    "small": (
        Grid(
            datasets=("cifar10",),
            attacks=("clean", "em", "tap", "lsp", "ar", "ops"),
            defenses=("standard", "cutout", "bdr", "grayscale", "jpeg", "early_stopping"),
            architectures=("resnet18",),
            protocols=("dvae",),
        ),
        Grid(
            datasets=("cifar10",),
            attacks=("clean", "lsp", "ops"),
            architectures=("mobilenetv2", "vgg16"),
            protocols=("dvae",),
        ),
        Grid(
            datasets=("cifar10",),
            attacks=("lsp", "ops", "withheld"),
            poison_ratios=(0.4, 0.8),
            architectures=("resnet18",),
            protocols=("dvae",),
        ),
        Grid(
            datasets=("cifar10",),
            attacks=("lsp", "em"),
            budgets=("0.5x", "2x"),
            architectures=("resnet18",),
            protocols=("dvae",),
        ),
        Grid(
            datasets=("cifar10",),
            attacks=("clean", "lsp", "em"),
            architectures=("resnet18",),
            learners=("simclr",),
            protocols=("tp_grid",),
        ),
    ),
    "paper": (
        Grid(
            datasets=("cifar10",),
            attacks=ATTACKS,
            defenses=DEFENSES,
            architectures=("resnet18",),
            protocols=("apbench",),
            seeds=(0, 1, 2),
        ),
        Grid(
            datasets=("cifar10",),
            attacks=ATTACKS,
            architectures=("resnet50", "mobilenetv2", "densenet121", "vit_small"),
            protocols=("apbench",),
            seeds=(0, 1, 2),
        ),
        Grid(
            datasets=("cifar10",),
            attacks=(*ATTACKS[1:], "withheld"),
            poison_ratios=RATIOS,
            architectures=("resnet18",),
            protocols=("apbench",),
            seeds=(0, 1, 2),
        ),
        Grid(
            datasets=("cifar10",),
            attacks=[attack for attack in ATTACKS[1:] if attack != "ops"],  # half a pixel is none
            budgets=("0.5x", "2x"),
            architectures=("resnet18",),
            protocols=("apbench",),
            seeds=(0, 1, 2),
        ),
        Grid(
            datasets=("cifar10",),
            attacks=ATTACKS,
            architectures=("resnet18",),
            learners=LEARNERS,
            protocols=("tp",),
            seeds=(0, 1, 2),
        ),
    ),
}

if __name__ == "__main__":
    sys.exit(experiment_main("full_grid", SCALES, __doc__))
