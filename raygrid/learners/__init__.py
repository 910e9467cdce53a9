"""Learners: one file each. Importing this package registers all of them.

A learner trains the victim, with the hooks of the defense inside, and hands out a classifier after
every epoch. The rooms `literature`, `trials`, `engine`, `reports`, `reproduce` and `cli` import it.
Start with `base.py`, then `supervised.py`; what several share lies in `common/`.
"""

from raygrid.learners import byol as byol
from raygrid.learners import finetune as finetune
from raygrid.learners import linear_probe as linear_probe
from raygrid.learners import moco as moco
from raygrid.learners import simclr as simclr
from raygrid.learners import simsiam as simsiam
from raygrid.learners import supcl as supcl
from raygrid.learners import supervised as supervised
from raygrid.learners.base import LEARNERS as LEARNERS
