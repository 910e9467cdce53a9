"""Qin et al. 2024, table 10: `python experiments/unsupervised.py --tier quick`.

Contrastive learners (SimCLR, MoCo v2), poisons made for the same one, five defenses; a linear
probe on clean images.
"""

import sys

from raygrid.cli.reproduce import paper_main

if __name__ == "__main__":
    sys.exit(paper_main("apbench", __doc__, ("defense",), ("10",)))
