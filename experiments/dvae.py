"""Yu et al. 2024, D-VAE: `python experiments/dvae.py --table 2 --scale quick`.

1      what D-VAE finds in a poison, put on clean images; how large both are
2      CIFAR-10: eight attacks, seven defenses, D-VAE on three more architectures
3, 10  CIFAR-100 (10: the members of the best of three filters)
4, 11  ImageNet subset
5      larger budgets
6      D-VAE without one of its stages
7      detection of poisoned images; growing a poison, and how large what was grown is
8      partial poisoning
9      adversarial augmentation at its best epoch
12     minutes of each step
13     JPEG qualities, accuracy and PSNR (by image, and of the mean error)

AVATAR comes with an extra: `uv run --extra avatar experiments/dvae.py`.
"""

import sys

from raygrid.cli.reproduce import paper_main

if __name__ == "__main__":
    sys.exit(paper_main("dvae", __doc__, ("defense", "transfer", "ratio", "budget", "detection")))
