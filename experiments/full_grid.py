"""The main grid: attacks x defenses x architectures x learners, published beside measured.

    python experiments/full_grid.py                      quick: minutes, embedded dataset, no GPU
    python experiments/full_grid.py --scale small        CIFAR-10, a GPU
    python experiments/full_grid.py --scale paper        CIFAR-10 at the papers' length, a cluster

Any axis can be given, e.g. `--attacks clean lsp --seeds 0 1 2`. Run it again to fill gaps.
"""

import sys

from raygrid.cli.run import experiment_main
from raygrid.engine.grid import Grid

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

SCALES = {
    "quick": (
        Grid(attacks=QUICK_ATTACKS, defenses=("standard", "grayscale", "jpeg", "early_stopping")),
        Grid(attacks=QUICK_ATTACKS, architectures=("small_resnet",)),
        Grid(attacks=QUICK_ATTACKS[:4], learners=("simclr",)),
    ),
    "small": (
        Grid(
            datasets=("cifar10",),
            attacks=("clean", "em", "tap", "lsp", "ar", "ops"),
            defenses=("standard", "cutout", "bdr", "grayscale", "jpeg", "early_stopping"),
            architectures=("resnet18",),
            protocols=("dvae",),
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
