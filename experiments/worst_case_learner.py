"""Worst-case learner: one poison, six ways to learn from it (Liu et al., tables 1 to 3).

    python experiments/worst_case_learner.py [--scale quick|small|paper]
    python experiments/worst_case_learner.py --table 1 --tier quick|small|grid|paper

With `--table` the printed table: 1 CIFAR-10, 2 CIFAR-100, 3 TinyImageNet and MiniImageNet.
"""

import sys

from raygrid.cli import reproduce, run
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


def main() -> int:
    """A printed table if one is asked for, else a grid."""
    if any(word.partition("=")[0] == "--table" for word in sys.argv[1:]):
        return reproduce.paper_main("transferable", __doc__, ("worst-learner",), ("1", "2", "3"))
    return run.experiment_main("worst_case_learner", SCALES, __doc__)


if __name__ == "__main__":
    sys.exit(main())
