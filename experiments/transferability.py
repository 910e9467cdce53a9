"""Transferability: poisons made with one architecture, victims of another (APBench, table 7).

python experiments/transferability.py [--scale quick|small|paper]
"""

import sys

from raygrid.cli.run import experiment_main
from raygrid.engine.grid import Grid

ATTACKS = ("clean", "em", "rem", "lsp", "ar")
VICTIMS = ("resnet18", "resnet50", "senet18", "mobilenetv2", "densenet121", "vit_small")
EM_QUICK = "em(batch_size=128, budget=16/255, max_rounds=4, step=0.5, steps=2, surrogate=small_cnn)"
SCALES = {
    "quick": (
        Grid(
            attacks=("clean", "lsp(budget=l2:3.48)", EM_QUICK),
            architectures=("small_cnn", "small_resnet"),
        ),
    ),
    "small": (
        Grid(
            datasets=("cifar10",),
            attacks=("clean", "em", "lsp", "ar"),
            architectures=("resnet18", "mobilenetv2", "densenet121"),
            protocols=("dvae",),
        ),
    ),
    "paper": (
        Grid(
            datasets=("cifar10",),
            attacks=ATTACKS,
            defenses=("standard", "grayscale", "jpeg", "early_stopping", "ueraser_max"),
            architectures=VICTIMS,
            protocols=("apbench",),
            seeds=(0, 1, 2),
        ),
    ),
}

if __name__ == "__main__":
    sys.exit(experiment_main("transferability", SCALES, __doc__))
