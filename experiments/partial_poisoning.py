"""Partial poisoning: accuracy over the poisoned share, with the clean remainder alone as control.

python experiments/partial_poisoning.py [--scale quick|small|paper]

APBench figures 3 to 5: what the victim makes of the poisoned images, of their clean versions, of
unseen images and of the clean rest. One perturbation of the whole set serves every ratio.
"""

import sys

from raygrid.cli.run import experiment_main
from raygrid.engine.grid import Grid

RATIOS = (0.2, 0.4, 0.6, 0.8, 1.0)
CONTROL = ("withheld",)
SCALES = {
    "quick": (
        Grid(attacks=("clean", "lsp(budget=l2:3.48)"), poison_ratios=RATIOS),
        Grid(attacks=CONTROL, poison_ratios=RATIOS[:-1]),
    ),
    "small": (
        Grid(
            datasets=("cifar10",),
            attacks=("clean", "em", "lsp", "ar"),
            poison_ratios=RATIOS,
            architectures=("resnet18",),
            protocols=("dvae",),
        ),
        Grid(
            datasets=("cifar10",),
            attacks=CONTROL,
            poison_ratios=RATIOS[:-1],
            architectures=("resnet18",),
            protocols=("dvae",),
        ),
    ),
    "paper": (
        Grid(
            datasets=("cifar10",),
            attacks=("clean", "em", "rem", "lsp", "ar"),
            poison_ratios=RATIOS,
            defenses=("standard", "grayscale", "jpeg", "ueraser_max"),
            architectures=("resnet18",),
            protocols=("apbench",),
            seeds=(0, 1, 2),
        ),
        Grid(
            datasets=("cifar10",),
            attacks=CONTROL,
            poison_ratios=RATIOS[:-1],
            defenses=("standard", "grayscale", "jpeg", "ueraser_max"),
            architectures=("resnet18",),
            protocols=("apbench",),
            seeds=(0, 1, 2),
        ),
    ),
}

if __name__ == "__main__":
    sys.exit(experiment_main("partial_poisoning", SCALES, __doc__))
