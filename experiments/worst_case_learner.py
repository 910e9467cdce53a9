"""Worst-case learner: one poison, six ways to learn from it.

python experiments/worst_case_learner.py [--scale quick|small|paper]

The printed tables: `raygrid reproduce transferable --table 1 | 2 | 3`.
"""

import sys

from raygrid.cli.run import experiment_main
from raygrid.engine.grid import Grid

LEARNERS = ("supervised", "supcl", "simclr", "byol", "moco", "simsiam")
ATTACKS = ("clean", "em", "tap", "tue", "aap", "tp")
SCALES = {
    "quick": (Grid(attacks=("clean", "lsp(budget=l2:3.48)"), learners=LEARNERS),),
    "small": (
        Grid(
            datasets=("cifar10",),
            attacks=("clean", "em", "tap", "lsp"),
            architectures=("resnet18",),
            learners=LEARNERS,
            protocols=("tp_grid",),
        ),
    ),
    "paper": (
        Grid(
            datasets=("cifar10", "cifar100"),
            attacks=ATTACKS,
            architectures=("resnet18",),
            learners=LEARNERS,
            protocols=("tp",),
            seeds=(0, 1, 2),
        ),
    ),
}

if __name__ == "__main__":
    sys.exit(experiment_main("worst_case_learner", SCALES, __doc__))
