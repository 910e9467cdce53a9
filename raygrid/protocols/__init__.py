"""Protocols: one class a source. Importing this package registers all of them.

A protocol is what a paper trains its victims with: epochs, optimizer, schedule, probes. It stands
in every key, and no table mixes two. Attacks, learners, trials and what lies above import this
room. Start with `base.py`, then `quick.py`; `setups/` holds targets and bases of targeted attacks.
"""

from raygrid.protocols import contrastive as contrastive
from raygrid.protocols import fast as fast
from raygrid.protocols import later as later
from raygrid.protocols import papers as papers
from raygrid.protocols import pretrained as pretrained
from raygrid.protocols import quick as quick
from raygrid.protocols import toxic as toxic
from raygrid.protocols.base import PROTOCOLS as PROTOCOLS
from raygrid.protocols.base import Protocol as Protocol
