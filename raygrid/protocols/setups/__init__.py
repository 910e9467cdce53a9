"""Set-ups of targeted attacks: which image is the target, which images the attacker may change.

Protocols import it to name a rule, targeted attacks and trials to follow it. Start
with `base.py`; `official.py` reads the published lists, `triggers.py` and `triples.py` hold patches
and readymade poisons.
"""

from raygrid.protocols.setups.base import Scene as Scene
from raygrid.protocols.setups.base import Setup as Setup
from raygrid.protocols.setups.base import SetupPlan as SetupPlan
from raygrid.protocols.setups.base import SetupRule as SetupRule
