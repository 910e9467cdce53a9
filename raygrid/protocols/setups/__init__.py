"""Set-ups of targeted attacks: which image is the target, which images the attacker may change."""

from raygrid.protocols.setups.base import Scene as Scene
from raygrid.protocols.setups.base import Setup as Setup
from raygrid.protocols.setups.base import SetupPlan as SetupPlan
from raygrid.protocols.setups.base import SetupRule as SetupRule
