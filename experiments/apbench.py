"""Qin et al. 2024, APBench: `python experiments/apbench.py --table 3 --scale quick`.

3      CIFAR-10, ResNet-18: nine attacks, thirteen defenses (16, 17: the same with their spread)
4      the same for ViT-small
5      CIFAR-100, SVHN, ImageNet-100 (`--dataset svhn` for one of them)
6      larger budgets
7      six architectures
8, 9   EM and REM made through a defense
10     contrastive learners
11     PGD-20 on the trained victims, white-box and black-box
12     clean training

AVATAR comes with an extra: `uv run --extra avatar experiments/apbench.py`.
"""

import sys

from raygrid.cli.reproduce import paper_main

if __name__ == "__main__":
    sys.exit(paper_main("apbench", __doc__, ("defense", "transfer", "budget")))
