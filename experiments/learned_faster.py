"""Sandoval-Segura et al. 2022: `python experiments/learned_faster.py --table 1`.

1      25 poisons, highest and last accuracy of a ResNet-18
2      ten of them again, and how often clean victims of four architectures get them wrong

Whether the accuracy goes with that, or with PSNR, is drawn of the trials of table 2 by `raygrid
figure transfer-peak | transfer-final TRIALS --victims CLEAN --file F` and `... psnr-final`.
"""

import sys

from raygrid.cli.reproduce import paper_main

if __name__ == "__main__":
    sys.exit(paper_main("learned_faster", __doc__, ("peak",)))
