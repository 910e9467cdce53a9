"""Liu et al., ablations of TP: `python experiments/tp_ablation.py --table 4 --tier quick`.

4      weights of alignment and uniformity
5      noise steps in each half
6      victims of other architectures
7      two models, TAP-based, and noises that are added up (HF, CC)
10     budgets

Six learners and their worst case in each. Tables 1 to 3: worst_case_learner.py.
"""

import sys

from raygrid.cli.reproduce import paper_main

if __name__ == "__main__":
    tables = ("4", "5", "6", "7", "10")
    sys.exit(paper_main("transferable", __doc__, ("worst-learner",), tables))
