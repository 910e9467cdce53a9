"""Set-ups of targeted attacks: which image is the target, which images the attacker may change."""

from raygrid.setups.base import Scene as Scene
from raygrid.setups.base import Setup as Setup
from raygrid.setups.base import SetupPlan as SetupPlan
from raygrid.setups.base import SetupRule as SetupRule
